"""How much of what is planted `check` finds: python bench/diagnose.py

Every program of bench/mistakes as it stands, with each right but unusual variant, and with each mistake. A mistake is
caught if the report is not ok; its line is named if a finding stands on it (where the statement is left out: if a
finding has the gradient's name); its cause is named, and its repair proved, by that finding, or by the first one where
none stands there. `best` counts the causes that are the best of several acceptable ones.

    --only NAME    the programs whose names contain NAME
    --two          pairs of mistakes in different statements of one program: two findings are expected, on both lines
    --misses       each miss in one line
    --json FILE    also writes every case to FILE
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from planted import Place, Planted, Program, programs, subject
from speed import machine

import chainrule as cr
from chainrule.diagnosis.report import Finding

PAIRS = 8  # of each program


@dataclass
class Outcome:
    """What `check` said of one case."""

    planted: Planted
    milliseconds: float
    ok: bool
    findings: list[Finding] = field(default_factory=list)
    crash: str = ""

    @property
    def alarm(self) -> bool:
        return bool(self.crash) or not self.ok or bool(self.findings)

    @property
    def caught(self) -> bool:
        return not self.crash and (not self.ok or bool(self.findings))

    @property
    def line(self) -> bool:
        return all(self.at(place) for place in self.planted.places)

    @property
    def cause(self) -> bool:
        found = [(place, self.at(place) or self.findings[:1]) for place in self.planted.places]
        return all(any(f.cause in place.change.causes for f in at) for place, at in found)

    @property
    def first_cause(self) -> bool:
        """Whether the best of several acceptable causes was named."""
        found = [(place, self.at(place) or self.findings[:1]) for place in self.planted.places]
        return all(any(f.cause == place.change.causes[0] for f in at) for place, at in found)

    @property
    def proved(self) -> bool:
        return all(any(f.proved for f in self.at(place) or self.findings[:1]) for place in self.planted.places)

    @property
    def counted(self) -> bool:
        """One finding for each mistake."""
        return len(self.findings) == len(self.planted.places)

    def at(self, place: Place) -> list[Finding]:
        """The findings that stand where the change was made; by name, where a statement is left out."""
        if place.first is None:  # `Linear.w` and `layers.0.w` are w, too
            return [f for f in self.findings if any(f".{f.name}".endswith(f".{n}") for n in place.change.names)]
        return [f for f in self.findings if place.holds(f.line)]

    def said(self) -> str:
        if self.crash:
            return f"crashed: {self.crash}"
        said = [f"{f.name} line {f.line} {f.cause}{' (proved)' if f.proved else ''}" for f in self.findings]
        return "; ".join(said) or ("no finding, but a wrong gradient" if not self.ok else "all right")

    def misses(self) -> list[str]:
        """What is amiss, if anything."""
        if self.planted.kind != "mistake":
            return ["false alarm"] if self.alarm else []
        wanted = {"line": self.line, "cause": self.cause, "proved": self.proved, "one finding each": self.counted}
        return [name for name, had in wanted.items() if not had] if self.caught else ["not caught"]

    def as_json(self) -> dict[str, Any]:
        return {
            "program": self.planted.program,
            "kind": self.planted.kind,
            "planted": [{**asdict(place.change), "line": place.first} for place in self.planted.places],
            "said": self.said(),
            "misses": self.misses(),
            "milliseconds": self.milliseconds,
        }


def diagnosed(planted: Planted, folder: Path) -> Outcome:
    """Check one case, and time it; an error of the check is part of the outcome."""
    code, args, kwargs = subject(planted.load(folder))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = cr.check(code, *args, **kwargs)
    except Exception as error:  # whatever it is, the person gets no diagnosis
        taken = (time.perf_counter() - start) * 1e3
        return Outcome(planted, taken, False, crash=f"{type(error).__name__}: {error}".splitlines()[0])
    taken = (time.perf_counter() - start) * 1e3
    return Outcome(planted, taken, report.ok, report.findings)


def cases_of(program: Program, two: bool) -> list[Planted]:
    return program.pairs(PAIRS) if two else program.cases()


HEAD = ("cases", "alarms", "mistakes", "caught", "line", "cause", "best", "proved", "single", "median ms", "largest")


def table_row(name: str, outcomes: list[Outcome]) -> str:
    """One line of the table: false alarms among the right cases, then what was found of the mistakes."""
    right = [o for o in outcomes if o.planted.kind != "mistake"]
    mistakes = [o for o in outcomes if o.planted.kind == "mistake"]
    caught = [o for o in mistakes if o.caught]
    counts = [
        len(outcomes),
        sum(o.alarm for o in right),
        len(mistakes),
        len(caught),
        *(sum(getattr(o, what) for o in caught) for what in ("line", "cause", "first_cause", "proved", "counted")),
    ]
    taken = [o.milliseconds for o in outcomes]
    numbers = [*(str(n) for n in counts), f"{statistics.median(taken):.0f}", f"{max(taken):.0f}"]
    return f"{name:<20}" + "".join(f"{n:>{max(len(h), 4) + 2}}" for h, n in zip(HEAD, numbers, strict=True))


def in_percent(outcomes: list[Outcome]) -> str:
    mistakes = [o for o in outcomes if o.planted.kind == "mistake"]
    right = [o for o in outcomes if o.planted.kind != "mistake"]
    parts = [f"{sum(o.alarm for o in right)} false alarms of {len(right)}"] if right else []
    for words, what in (("caught", "caught"), ("line named", "line"), ("cause named", "cause"),
                        ("repair proved", "proved"), ("one finding each", "counted")):  # fmt: skip
        had = sum(o.caught and getattr(o, what) for o in mistakes)
        parts += [f"{words} {100 * had / len(mistakes):.1f} %"] if mistakes else []
    parts += [f"{sum(bool(o.crash) for o in outcomes)} crashes"]
    return ", ".join(parts)


def run(chosen: Iterable[Program], two: bool, folder: Path) -> list[Outcome]:
    print(machine())
    print(f"{'program':<20}" + "".join(f"{h:>{max(len(h), 4) + 2}}" for h in HEAD))
    outcomes: list[Outcome] = []
    for program in chosen:
        here = [diagnosed(planted, folder) for planted in cases_of(program, two)]
        if here:  # a program of one mistake has no pairs
            print(table_row(program.name, here), flush=True)
        outcomes += here
    if outcomes:
        print(table_row("together", outcomes))
    print(in_percent(outcomes))
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help="the programs whose names contain NAME")
    parser.add_argument("--two", action="store_true", help="pairs of mistakes")
    parser.add_argument("--misses", action="store_true", help="each miss in one line")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every case to FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = programs(options.only)
    if not chosen:
        parser.error(f"no program in bench/mistakes has {options.only!r} in its name")
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run(chosen, options.two, Path(folder))
    if options.misses:
        for o in outcomes:
            if o.misses():
                print(f"{', '.join(o.misses())}: {o.planted} -> {o.said()}"[:300])
    if options.json:
        result = {"machine": machine(), "cases": [o.as_json() for o in outcomes]}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(any(o.misses() for o in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
