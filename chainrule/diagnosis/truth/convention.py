"""A number that all gradients on the way are times the right ones, and that the gradients of the parameters make up for:
the batch size, where `dZ = A - Y` and `dW = dZ @ A.T / m`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.diagnosis.reading.claim import Claim

if TYPE_CHECKING:
    from chainrule.diagnosis.truth.case import Case, Point

_EQUAL = 1e-8


@dataclass(frozen=True)
class Convention:
    """Told by lines that make up for it: what they give, from the right gradients, is that much too small."""

    told: tuple[tuple[Claim, tuple[Claim, ...]], ...]  # each with those that it is computed from
    inputs: frozenset[fx.Node]  # whose gradients are that much too large, too: of the first layer's input

    def holds_for(self, value: fx.Node) -> bool:
        """Whether the gradient of a value is the number times the right one."""
        return value.op != "placeholder" or value in self.inputs

    def factor(self, case: Case, point: Point) -> float:
        """The number at one point; 1 where nothing tells it. Where all units are dead, it is that for the person's inputs."""
        for at in (point, case.here):
            ratios = (ratio_of(case, claim, above, at) for claim, above in self.told)
            if (known := next((1 / r for r in ratios if r), None)) is not None and _alike(point, at):
                return known
        return 1.0


def _alike(point: Point, other: Point) -> bool:
    """Whether the inputs have the same sizes."""
    return all(getattr(v, "shape", None) == getattr(other.known.get(n), "shape", None) for n, v in point.known.items())


def ratio_of(case: Case, claim: Claim, above: tuple[Claim, ...], point: Point) -> float | None:
    """How many times the right gradient a line gives, from those above it as autograd has them; None where it gives
    another one."""
    fed = case.fed_values([claim.node], above, point, bare=True).get(claim.node)
    truth = point.bare_truth(claim.value)
    length = float((truth * truth).sum())
    if not isinstance(fed, torch.Tensor) or fed.shape != truth.shape or not length:
        return None
    ratio = float((fed * truth).sum()) / length
    close = bool(((fed - ratio * truth).abs() <= _EQUAL * abs(ratio) * truth.abs().max()).all())
    return ratio if close else None
