"""What `audit` says: which planted mistakes a gradient test notices, and which pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chainrule.diagnosis.report import clickable

_SHOWN = 12  # survivors that are printed; the others are in `.survived`


@dataclass(frozen=True)
class Mutant:
    """A mistake written into a backward pass: one changed line."""

    cause: str  # one of chainrule.diagnosis.causes.CAUSES
    file: str
    line: int
    before: str
    after: str
    gradient: str  # the one that it changes most, as the person writes it: "w.g"
    change: float  # of that gradient, relative to its largest element; infinite where its shape changes
    gradients: tuple[str, ...] = ()  # all that it changes
    hint: str = ""  # why the test lets it pass, where that was found

    def __str__(self) -> str:
        return self.at(clickable(self.file))

    def at(self, file: str) -> str:
        """`file:line: cause what`, the form that terminals and editors make a link of.

        >>> Mutant("wrong-scale", "net.py", 7, "w.g = a", "w.g = 1.01 * a", "w.g", 0.01).at("net.py")
        'net.py:7: wrong-scale w.g is off by 1 % and the test passes'
        """
        return f"{file}:{self.line}: {self.cause} {self.gradient} {self._what()} and the test passes"

    def _what(self) -> str:
        if self.cause == "missing-gradient":
            return "is not computed"
        if math.isinf(self.change):
            return "has another shape"
        if self.change > 1e100:
            return "is not finite"
        percent = 100 * self.change
        return f"is off by {percent:.0f} %" if percent >= 100 else f"is off by {percent:.2g} %"

    def lines(self) -> list[str]:
        return [*([f"- {self.before}"] if self.before else []), *(f"+ {line}" for line in self.after.splitlines())]


@dataclass(repr=False)
class Audit:
    """The result of `audit`; truthy when the test noticed every mistake."""

    test: str
    code: str
    caught: list[Mutant] = field(default_factory=list)
    survived: list[Mutant] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)  # why mutants survive, most telling first
    notes: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of the mistakes that the test noticed."""
        return len(self.caught) / (len(self.caught) + len(self.survived))

    def __bool__(self) -> bool:
        return not self.survived

    def __repr__(self) -> str:
        return f"Audit({self._count()})"

    def __str__(self) -> str:
        return self.text(lambda m: m.at(clickable(m.file)))

    def text(self, head: Callable[[Mutant], str]) -> str:
        """The table, the survivors each under its `head`, and the hints."""
        parts = [self.table()]
        for mutant in self.survived[:_SHOWN]:
            parts.append("\n".join([head(mutant), *(f"  {line}" for line in mutant.lines())]))
        if len(self.survived) > _SHOWN:
            parts.append(f"and {len(self.survived) - _SHOWN} more")
        told = [*(f"hint: {hint}" for hint in self.hints), *(f"note: {note}" for note in self.notes)]
        return "\n\n".join([*parts, *(["\n".join(told)] if told else [])])

    def table(self) -> str:
        """A line for each kind of mistake: how many were made, and how many the test noticed."""
        made, seen = Counter(m.cause for m in [*self.caught, *self.survived]), Counter(m.cause for m in self.caught)
        rows = [("mistake", "made", "caught"), *((c, str(n), str(seen[c])) for c, n in sorted(made.items()))]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        body = [f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c.rjust(widths[2])}" for a, b, c in rows]
        return "\n".join([*body, self._count()])

    def as_dict(self) -> dict[str, Any]:
        """For programs: everything but the mistakes that were caught, of which it has the number."""
        return {
            "test": self.test,
            "code": self.code,
            "ok": bool(self),
            "share": self.share,
            "caught": len(self.caught),
            "survived": [_as_dict(m) for m in self.survived],
            "hints": self.hints,
            "notes": self.notes,
        }

    def _count(self) -> str:
        return f"{self.test} catches {len(self.caught)} of {len(self.caught) + len(self.survived)} mistakes"


def _as_dict(mutant: Mutant) -> dict[str, Any]:
    change = mutant.change if math.isfinite(mutant.change) else None  # JSON has no infinity
    return {**vars(mutant), "change": change, "gradients": list(mutant.gradients)}
