"""The rule book against torch's operator database: python bench/coverage.py [ENTRY ...]

`--part SEED:SHARE` measures a share of the entries, chosen by the seed; `--emit` runs the emitted code of
every sample as well; `--save` writes the results, `--docs` the page in docs/. The exit code is 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from chainrule.checking import covered
from chainrule.checking.coverage import RULES, measure_all
from chainrule.checking.entries import chosen, named

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "bench" / "results" / "coverage.json", ROOT / "docs" / "coverage.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="*", help="names, or parts of names; default: all")
    parser.add_argument("--part", default="0:1", metavar="SEED:SHARE", help="a share of the entries, by a seed")
    parser.add_argument("--emit", action="store_true", help="run the emitted code of every sample as well")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--docs", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    names = chosen(named(options.entries), options.part)
    print(f"part {options.part}: {len(names)} entries", flush=True)
    started, results = time.perf_counter(), []
    for result in measure_all(names, options.emit):
        results.append(result)
        if result.status != RULES:
            print(f"{result.entry}: {result.status}: {result.reason}"[:300], flush=True)
    print(f"{covered.in_words(results)}; {time.perf_counter() - started:.0f} s")
    if options.save:
        RESULTS.write_text(json.dumps(covered.as_json(results), indent=1) + "\n", encoding="utf-8")
    if options.docs:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(covered.as_markdown(results), encoding="utf-8")
    return int(not all(r.ok for r in results))


if __name__ == "__main__":
    raise SystemExit(main())
