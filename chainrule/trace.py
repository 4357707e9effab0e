"""Every step of a derivation with its code, shape and value, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from chainrule.show.layout import Layout

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


@dataclass(frozen=True)
class Step:
    """One line of the program and the value that it gave."""

    phase: str  # "input", "forward" or "backward"
    name: str
    code: str
    shape: tuple[int, ...]
    value: torch.Tensor
    line: int | None  # of the person's code, for forward steps

    def __str__(self) -> str:
        return f"{self.code}  {self.shape}  {summary(self.value)}"


class Trace:
    """The steps of a derivation; `str()` is a table, and small values are shown whole below it."""

    def __init__(self, d: Derivation) -> None:
        d.values()
        layout = Layout(d.program, dotted=True)
        self.steps: list[Step] = []
        for node in d.program.inputs:
            if node in layout.variables:
                self._add("input", layout.variables[node], layout.variables[node], node.meta["val"], None)
        for line in layout.lines:
            value = line.node.meta["val"]
            if line.phase in ("forward", "backward") and isinstance(value, torch.Tensor):
                site = line.node.meta.get("site")
                at = site.line if site and line.phase == "forward" else None
                self._add(line.phase, line.target, line.text, value, at)

    def _add(self, phase: str, name: str, code: str, value: torch.Tensor, at: int | None) -> None:
        self.steps.append(Step(phase, name, code, tuple(value.shape), value.detach(), at))

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Step:
        return next(s for s in self.steps if s.name == name)

    def __str__(self) -> str:
        code = max((len(s.code) for s in self.steps), default=0)
        shape = max((len(str(s.shape)) for s in self.steps), default=0)
        lines, phase = [], ""
        for s in self.steps:
            if s.phase != phase:
                phase = s.phase
                lines.append(phase)
            first, *rest = summary(s.value).split("\n")
            lines.append(f"  {s.code:<{code}}  {s.shape!s:<{shape}}  {first}".rstrip())
            lines += [f"  {'':<{code}}  {'':<{shape}}  {more}" for more in rest]
        return "\n".join(lines)


def summary(value: torch.Tensor, whole: int = 48) -> str:
    """A small tensor as it is; a large one by range, mean and share of zeros.

    >>> summary(torch.tensor([1., 2.]))
    '[1, 2]'
    >>> summary(torch.arange(100.))
    '0 .. 99, mean 49.5, 1% zeros'
    """
    if value.numel() <= whole and value.ndim <= 2:
        rows = value.tolist()
        if value.ndim < 2:
            return _row(rows)
        width = max((len(f"{float(v):.4g}") for row in rows for v in row), default=0)
        return "\n".join("[" + " ".join(f"{float(v):>{width}.4g}" for v in row) + "]" for row in rows) or "[]"
    real = value.double() if not value.dtype.is_complex else value.abs().double()
    finite = real[torch.isfinite(real)]
    if not finite.numel():
        return "no finite element"
    text = f"{float(finite.min()):.4g} .. {float(finite.max()):.4g}, mean {float(finite.mean()):.4g}"
    zeros, lost = int((real == 0).sum()), value.numel() - finite.numel()
    text += f", {zeros / value.numel():.0%} zeros" if zeros else ""
    return text + (f", {lost} not finite" if lost else "")


def _row(values: object) -> str:
    if isinstance(values, list):
        return "[" + ", ".join(f"{float(v):.4g}" for v in values) + "]"
    return f"{float(values):.6g}"  # type: ignore[arg-type]
