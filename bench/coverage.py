"""The rule book against torch's operator database: python bench/coverage.py [ENTRY ...] [--emit] [--save]

`--part SEED:SHARE` measures a share of the entries, chosen by the seed; `--save` writes the results.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path

from chainrule.checking import coverage

RESULTS = Path(__file__).parent / "results" / "coverage.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="*", help="names, or parts of names; default: all")
    parser.add_argument("--emit", action="store_true", help="run the emitted code of every sample as well")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--exact", action="store_true", help="take the names as they are")
    options = parser.parse_args()
    names = list(coverage.entries())
    if options.entries:
        names = [n for n in names if any(e == n if options.exact else e in n for e in options.entries)]
    random.Random(0).shuffle(names)
    started, results = time.perf_counter(), []
    for result in coverage.measure_all(names, options.emit):
        results.append(result)
        if result.status != coverage.RULES:
            print(f"{result.status:14} {result.entry}: {result.message or ', '.join(result.fallbacks)}"[:300])
    counts = Counter(r.status for r in results)
    print(f"{len(results)} entries, {sum(r.samples for r in results)} samples, {time.perf_counter() - started:.0f} s:",
          ", ".join(f"{status} {count}" for status, count in counts.most_common()))  # fmt: skip
    if options.save:
        RESULTS.write_text(json.dumps(coverage.as_json(results), indent=1) + "\n")
    return int(any(r.status in (coverage.WRONG, coverage.CRASHED) for r in results))


if __name__ == "__main__":
    raise SystemExit(main())
