"""What was measured on torch's operator database, as a table by family: for people, for programs, for the docs."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from chainrule.checking.coverage import RULES, STATUSES, Result
from chainrule.checking.entries import NO_GRADIENT, NO_RULE, OPENED
from chainrule.rules.families import about

_OTHERS = {
    OPENED: "Functions that torch puts together from other operations, which have rules.",
    NO_GRADIENT: "Operations whose result counts as constant, in torch too.",
    NO_RULE: "Taken from autograd as one step, or refused by name.",
}


@dataclass
class Family:
    """One row of the table."""

    name: str
    about: str
    results: list[Result] = field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(r.status == status for r in self.results)


def table(results: Iterable[Result]) -> list[Family]:
    """The families that `results` are about, in the order of the book."""
    rows = {name: Family(name, line) for name, line in (about() | _OTHERS).items()}
    for r in sorted(results, key=lambda r: r.entry):
        rows.setdefault(r.family, Family(r.family, "A rule from outside the book.")).results.append(r)
    return [row for row in rows.values() if row.results]


def totals(results: Iterable[Result]) -> dict[str, int]:
    """How many entries there are of each status."""
    counts = Counter(r.status for r in results)
    return {status: counts[status] for status in STATUSES if counts[status]}


def as_json(results: list[Result]) -> dict[str, Any]:
    """The results under a head that says where they were measured."""
    return {
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "entries": len(results),
        "samples": sum(r.samples for r in results),
        "totals": totals(results),
        "results": [{**asdict(r), "reason": r.reason} for r in sorted(results, key=lambda r: r.entry)],
    }


def in_words(results: list[Result]) -> str:
    """The totals in one line.

    >>> in_words([Result("sin", "rules", samples=2), Result("to_sparse", "refused", samples=1)])
    '2 entries, 3 samples: 1 rules, 1 refused'
    """
    counts = ", ".join(f"{count} {status}" for status, count in totals(results).items())
    return f"{len(results)} entries, {sum(r.samples for r in results)} samples: {counts}"


def as_markdown(results: list[Result]) -> str:
    """The page docs/coverage.md."""
    counts = totals(results)
    lines = [
        "# What is covered",
        "",
        "Each entry of PyTorch's own operator database (`torch.testing`, the source of PyTorch's own tests) that has a",
        "gradient in float64 is derived on all its dense samples, with every gradient compared with autograd's and the",
        "emitted code run. This page is written by `python bench/coverage.py --emit --save --docs`; `chainrule rules",
        "--coverage` measures it on your machine.",
        "",
        f"torch {torch.__version__}: {len(results)} entries, {sum(r.samples for r in results)} samples.",
        "",
        "| outcome | entries |",
        "| --- | ---: |",
        *(f"| {status} | {count} |" for status, count in counts.items()),
        "",
        "## By family",
        "",
        "| family | what is in it | entries | names |",
        "| --- | --- | ---: | --- |",
    ]
    for row in table(results):
        names = ", ".join(f"`{r.entry}`" for r in row.results)
        lines.append(f"| {row.name} | {row.about} | {len(row.results)} | {names} |")
    apart = [r for r in results if r.status != RULES]
    lines += ["", "## Not by rules", "", "| entry | outcome | why |", "| --- | --- | --- |"]
    lines += [f"| `{r.entry}` | {r.status} | {r.reason} |" for r in sorted(apart, key=lambda r: r.entry)]
    return "\n".join(lines) + "\n"
