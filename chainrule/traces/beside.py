"""Two runs of one program side by side: each value before and after, and how far it moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from chainrule.errors import ChainruleError
from chainrule.show import table
from chainrule.traces.summary import in_words, small

if TYPE_CHECKING:
    from chainrule.traces.trace import Step, Trace

WHOLE = 6  # elements; more are told in words
_HEAD = ["step", "shape", "before", "after", "largest change"]


@dataclass(frozen=True)
class Pair:
    """One value in two runs."""

    step: Step
    before: torch.Tensor
    after: torch.Tensor

    @property
    def change(self) -> float:
        """The change of the element that moved furthest, with its sign; NaN where a number is."""
        if not self.before.numel() or self.before.shape != self.after.shape:
            return 0.0
        a, b = (t.to(torch.complex128 if t.dtype.is_complex else torch.float64) for t in (self.before, self.after))
        moved = torch.where(a == b, torch.zeros_like(a), b - a).flatten()
        most = moved[moved.abs().argmax()]
        return float(most.abs() if most.dtype.is_complex else most)

    def row(self) -> list[str]:
        shape = str(tuple(self.before.shape))
        if self.before.shape != self.after.shape:
            shape, moved = f"{shape}, {tuple(self.after.shape)}", "another shape"
        else:
            moved = f"{self.change:+.4g}" if self.change else "0"
        return [self.step.name, shape, _told(self.before), _told(self.after), moved]


class Beside:
    """What `trace.beside(other)` gives; `[name]` finds the pair of a value, `str()` is a table."""

    def __init__(self, before: Trace, after: Trace) -> None:
        """Raises ChainruleError where the two are no runs of the same program."""
        names = [[step.name for step in trace] for trace in (before, after)]
        if names[0] != names[1]:
            other = sorted(set(names[0]) ^ set(names[1])) or ["another order"]
            raise ChainruleError(
                f"the two traces are of different programs ({', '.join(other[:5])}); compare runs of one forward pass"
            )
        self.pairs = [Pair(a, a.value, b.value) for a, b in zip(before, after, strict=True)]

    def __getitem__(self, name: str) -> Pair:
        for pair in self.pairs:
            if pair.step.name == name:
                return pair
        raise ChainruleError(f"no step is named {name!r}; there are {', '.join(p.step.name for p in self.pairs)}")

    def __str__(self) -> str:
        return table.text([_HEAD, *(pair.row() for pair in self.pairs)])

    def _repr_html_(self) -> str:
        return table.html(_HEAD, [pair.row() for pair in self.pairs])


def _told(value: torch.Tensor) -> str:
    if not value.numel():
        return "no elements"
    return small(value) if value.numel() <= WHOLE and value.ndim < 2 else in_words(value)
