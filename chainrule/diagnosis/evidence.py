"""Hand-written and derived gradients of one recorded run, evaluated in float64 wherever one likes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.handwritten import Handwritten
from chainrule.program import Program, differentiable
from chainrule.run import double, needed, run

RIGHT = 1e-8  # in float64, relative to the largest element: what only rounding can explain


class Evidence:
    """The values of every gradient at one point: as recorded, or with the inputs moved a little off it."""

    def __init__(self, hand: Handwritten, base: Program, nudge: float = 0.0) -> None:
        self.base, self.written = base, hand.nodes
        roots = [*hand.nodes.values(), *base.gradients.values(), base.output]
        generator = torch.Generator().manual_seed(0)
        known: dict[fx.Node, Any] = {}
        for node in hand.recorder.inputs:
            value = double(node.meta["val"])
            if nudge and differentiable(node) and node is not base.upstream:
                size = value.abs() + 0.01
                value = value + nudge * size * torch.randn(value.shape, generator=generator, dtype=value.dtype)
            known[node] = value
        with torch.no_grad():
            self.values = run(needed(roots), known, double)

    def truth(self, value: fx.Node) -> torch.Tensor:
        gradient = self.base.gradients.get(value)
        return self.values[gradient] if gradient is not None else torch.zeros_like(double(value.meta["val"]))

    def hand(self, value: fx.Node) -> torch.Tensor:
        found: torch.Tensor = self.values[self.written[value]]
        return found

    def error(self, value: fx.Node) -> float:
        """The relative error of a hand-written gradient."""
        return errors(self.hand(value), self.truth(value))[1]

    def error_given(self, value: fx.Node, above: list[fx.Node]) -> float | None:
        """Its error if the hand-written gradients of `above` are taken for right; None where their shapes forbid it."""
        gradient = self.base.gradients.get(value)
        if gradient is None:
            return self.error(value)
        swap = {self.base.gradients[u]: self.hand(u) for u in above if u in self.base.gradients}
        forward = {n: v for n, v in self.values.items() if n.meta["phase"] == "forward"}
        try:
            with torch.no_grad():
                values = run(needed([gradient], given=swap), {**forward, **swap}, double)
            return errors(self.hand(value), values[gradient])[1]
        except (RuntimeError, IndexError, ValueError):
            return None


def errors(got: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """The largest difference, and that relative to the largest element; infinite where the shapes differ."""
    if got.shape != truth.shape:
        return float("inf"), float("inf")
    if not truth.numel():
        return 0.0, 0.0
    if not torch.equal(torch.isfinite(got), torch.isfinite(truth)):
        return float("inf"), float("inf")
    got, truth = got.detach(), truth.detach()
    difference = float((got - truth).nan_to_num(0.0).abs().max())
    size = float(truth.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return difference, difference / size if size else (0.0 if not difference else float("inf"))
