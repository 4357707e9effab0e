"""A row for each hand-written gradient: whether it is right as it stands, and by how much it is not."""

from __future__ import annotations

import math

import torch

from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.report import Row
from chainrule.diagnosis.truth.case import CLOSE, RIGHT, SPREAD, Case, Point, errors, same
from chainrule.run import double, needed

MOST = 1e-9  # of the largest number of a run in float64: what rounding may come to at the most
_LARGEST = frozenset(("amax", "amin", "max", "min", "maximum", "minimum", "max_pool1d", "max_pool2d", "max_pool3d"))


class Rows:
    """The rows of all explicit claims, and notes on them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.notes: list[str] = []
        self.rows: dict[Claim, Row] = {}
        for claim in case.claims:
            self.rows[claim] = self._row(claim)
        self._take_made_up_for()

    def _take_made_up_for(self) -> None:
        """Gradients on the way that are a number times the right ones, which those of the inputs that are computed from
        them make up for: `dZ = A - Y`, and `dW = dZ @ A.T / m`."""
        wrong = [c for c, row in self.rows.items() if row.status not in ("right", "close")]
        inputs = [c for c in self.rows if c.value.op == "placeholder"]
        if not wrong or not inputs or any(c in wrong for c in inputs):
            return
        read = set(needed([c.node for c in inputs]))
        ratios = [self._ratio(c) if c.node in read and self.rows[c].status == "wrong" else None for c in wrong]
        for claim, ratio in zip(wrong, ratios, strict=True) if None not in ratios else ():
            self.rows[claim].status = "right"
            said = f"{ratio:.6g} times the gradient of {claim.name}, for which what is computed from it makes up"
            self.notes.append(f"{claim.target} is {said}")

    def _ratio(self, claim: Claim) -> float | None:
        """How many times the right gradient it is, here and nearby."""
        found = []
        for point in (self.case.here, self.case.nearby):
            held, truth = point.values.get(claim.node), point.truth(claim.value)
            size = float((truth * truth).sum())
            if not isinstance(held, torch.Tensor) or held.shape != truth.shape or not size:
                return None
            found.append(float((held * truth).sum()) / size)
            if not same(held, found[-1] * truth):
                return None
        return found[0] if found[0] and math.isclose(*found, rel_tol=1e-6) else None

    @property
    def ok(self) -> bool:
        return all(row.status in ("right", "close") for row in self.rows.values())

    def _row(self, claim: Claim) -> Row:
        case, value = self.case, claim.value
        shape, place = tuple(claim.tensor.shape), (claim.spot.line, claim.spot.file) if claim.spot else (None, None)
        expected = tuple(value.meta["val"].shape)
        if shape != expected and self._is_summed(claim):
            self.notes.append(
                f"the gradient of {claim.name} has shape {shape}, {claim.name} has {expected}: autograd itself sums it over "
                f"the axes along which {claim.name} was stretched"
            )
            return Row(claim.name, "right", 0.0, 0.0, expected, expected, *place)
        if shape != expected:
            return Row(claim.name, "wrong shape", None, None, shape, expected, *place)
        truth = case.here.truth(value)
        error, relative = errors(case.here.values[claim.node], truth)
        status = "right" if relative <= RIGHT or self.is_rounding(claim, case.here) else "wrong"
        if status == "right" or not case.tracked(claim):
            # by the person's own numbers: rounding of their dtype, or a path that could not be recorded
            error, relative = errors(double(claim.tensor.detach()), truth)
            status = "right" if self._near(claim, error, relative) else "close" if status == "right" else "wrong"
        elif self._only_at_a_kink(claim):
            status = "right"
            self.notes.append(f"{claim.target} follows another convention than autograd where the slope jumps")
        if status == "wrong" and case.unguarded is not None and self._is_bare(claim, case.unguarded):
            status = "right"
            self.notes.append(f"{claim.target} leaves out the small number that keeps a logarithm or a quotient finite")
        return Row(claim.name, status, error, relative, shape, expected, *place)

    def _is_bare(self, claim: Claim, free: Point) -> bool:
        """Whether it is the gradient without what only keeps a logarithm finite; or, of a quotient, about the right one, and
        just that where nothing is added."""
        held, right, bare = (
            self.case.here.values[claim.node],
            self.case.here.truth(claim.value),
            free.truth(claim.value),
        )
        if errors(held, right)[1] <= SPREAD * self.case.guards.slight and claim.node in free.values:
            return errors(free.values[claim.node], bare)[1] <= RIGHT
        if self.case.tracked(claim):
            return errors(held, bare)[1] <= RIGHT
        held = claim.tensor.detach()
        least = max(RIGHT, CLOSE * torch.finfo(held.dtype).eps) if held.dtype.is_floating_point else 0.0
        return errors(held.double(), bare)[1] <= least

    def _is_summed(self, claim: Claim) -> bool:
        """Whether a torch.autograd.Function leaves the sum over stretched axes to autograd, which makes it
        (`reduce_grad` in torch/csrc/autograd/input_metadata.cpp)."""
        expected, held = claim.value.meta["val"].shape, self.case.here.values.get(claim.node)
        if not self.case.hand.asked.function or not isinstance(held, torch.Tensor):
            return False
        try:
            whole = torch.broadcast_shapes(expected, held.shape) == held.shape  # type: ignore[no-untyped-call]
        except RuntimeError:
            return False
        return whole and errors(held.sum_to_size(expected), self.case.here.truth(claim.value))[1] <= RIGHT

    def _near(self, claim: Claim, error: float, relative: float) -> bool:
        if not (claim.tensor.dtype.is_floating_point or claim.tensor.dtype.is_complex):
            return error == 0
        eps = torch.finfo(claim.tensor.dtype).eps
        if relative <= CLOSE * eps:
            return True
        gap = (double(claim.tensor.detach()) - self.case.here.truth(claim.value)).abs()
        return bool((gap <= SPREAD * self._noise(claim, self.case.here, eps)).all())

    def is_rounding(self, claim: Claim, point: Point) -> bool:
        """Whether terms that cancel explain the difference: the gradient of a bias before a batch norm is zero."""
        held, truth = point.values[claim.node], point.truth(claim.value)
        if not errors(held, truth)[0] <= MOST * point.largest or not bool(
            torch.isfinite(gap := (held - truth).abs()).all()
        ):
            return False
        return bool((gap <= SPREAD * self._noise(claim, point, torch.finfo(torch.float64).eps)).all())

    def _noise(self, claim: Claim, point: Point, eps: float) -> torch.Tensor:
        nodes = [claim.node] + [g for g in [self.case.base.gradients.get(claim.value)] if g is not None]
        found = self.case.noise(list(dict.fromkeys(nodes)), point, eps)
        return torch.stack([found[n].expand(claim.tensor.shape) for n in found]).sum(0)

    def _only_at_a_kink(self, claim: Claim) -> bool:
        near = self.case.off_kinks
        if near is None or claim.node not in near.values:
            return False
        right = errors(near.values[claim.node], near.truth(claim.value))[1] <= RIGHT or self.is_rounding(claim, near)
        return right and not self.splits_ties(claim)

    def splits_ties(self, claim: Claim) -> bool:
        """Whether elements that tie for the largest are given more, or less, than the gradient of the largest one."""
        used = [u for u in self.case.forward if u.meta["operation"] in _LARGEST and claim.value in needed([u])]
        here = self.case.here
        sums = [float(g.sum()) for g in (here.values[claim.node], here.truth(claim.value))]
        return bool(used) and abs(sums[0] - sums[1]) > 1e-6 * float(here.truth(claim.value).abs().sum())
