"""Which lines are wrong by themselves: each is fed the right gradients of the values above it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx

from chainrule.diagnosis.locating.missing import missing_inputs
from chainrule.diagnosis.locating.placed import Placed
from chainrule.diagnosis.locating.unnamed import shared_gradient
from chainrule.diagnosis.reading.claims import Claim
from chainrule.diagnosis.report import Row
from chainrule.diagnosis.truth.case import CLOSE, RIGHT, SPREAD, Case, Point, errors
from chainrule.run import needed

MOST = 1e-9  # of the largest number of a run in float64: what rounding may come to at the most
_LARGEST = frozenset(("amax", "amin", "max", "min", "maximum", "minimum", "max_pool1d", "max_pool2d", "max_pool3d"))


@dataclass(eq=False)
class Wrong:
    """A claim that is wrong given the claims that it was computed from."""

    claim: Claim
    above: list[Claim]
    row: Row | None
    mine: list[fx.Node]  # what computes it from the claims above and the forward pass, in order

    def shares(self, other: Wrong) -> bool:
        """Whether both may have one reason: a value on the way that both read, or one line."""
        spots = [w.claim.spot for w in (self, other)]
        if all(s is not None for s in spots) and (spots[0].code, spots[0].index) == (spots[1].code, spots[1].index):  # type: ignore[union-attr]
            return True
        return not set(self.mine).isdisjoint(other.mine) or other.claim in self.above


class Located:
    """Rows for all explicit claims; the claims that are wrong by themselves; the inputs that have none."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.notes: list[str] = []
        self.rows: dict[Claim, Row] = {}
        self.known = list(case.claims)
        self.wrong: list[Wrong] = []
        self.handed: list[Claim] = []  # of what layers are given, and what they return
        for claim in case.claims:
            self.rows[claim] = self._row(claim)
        if self._wrong_rows() or (case.hand.calls and self.missing):
            self._take_guesses()
            self._find()
            while (shared := shared_gradient(case, self.wrong, self.known)) is not None:
                self._take(shared)
                self._find()

    # -- rows ------------------------------------------------------------------------------------

    def _row(self, claim: Claim) -> Row:
        case, value = self.case, claim.value
        shape, place = tuple(claim.tensor.shape), (claim.spot.line, claim.spot.file) if claim.spot else (None, None)
        expected = tuple(value.meta["val"].shape)
        if shape != expected:
            return Row(claim.name, "wrong shape", None, None, shape, expected, *place)
        truth = case.here.truth(value)
        error, relative = errors(case.here.values[claim.node], truth)
        status = "right" if relative <= RIGHT or self.is_rounding(claim, case.here) else "wrong"
        if status == "right" or not case.tracked(claim):
            # by the person's own numbers: rounding of their dtype, or a path that could not be recorded
            error, relative = errors(claim.tensor.detach().double(), truth)
            status = "right" if self._near(claim, error, relative) else "close" if status == "right" else "wrong"
        elif self._only_at_a_kink(claim):
            status = "right"
            self.notes.append(f"{claim.target} follows another convention than autograd where the slope jumps")
        return Row(claim.name, status, error, relative, shape, expected, *place)

    def _near(self, claim: Claim, error: float, relative: float) -> bool:
        if not claim.tensor.dtype.is_floating_point:
            return error == 0
        eps = torch.finfo(claim.tensor.dtype).eps
        if relative <= CLOSE * eps:
            return True
        gap = (claim.tensor.detach().double() - self.case.here.truth(claim.value)).abs()
        return bool((gap <= SPREAD * self._noise(claim, self.case.here, eps)).all())

    def is_rounding(self, claim: Claim, point: Point) -> bool:
        """Whether terms that cancel explain the difference: the gradient of a bias before a batch norm is zero."""
        gap = (point.values[claim.node] - point.truth(claim.value)).abs()
        if not bool(torch.isfinite(gap).all()) or float(gap.max()) > MOST * point.largest:
            return False
        return bool((gap <= SPREAD * self._noise(claim, point, torch.finfo(torch.float64).eps)).all())

    def _noise(self, claim: Claim, point: Point, eps: float) -> torch.Tensor:
        nodes = [claim.node] + [g for g in [self.case.base.gradients.get(claim.value)] if g is not None]
        found = self.case.noise(list(dict.fromkeys(nodes)), point, eps)
        return torch.stack([found[n].expand(claim.tensor.shape) for n in found]).sum(0)

    def _only_at_a_kink(self, claim: Claim) -> bool:
        near = self.case.nearby
        if claim.node not in near.values:
            return False
        right = errors(near.values[claim.node], near.truth(claim.value))[1] <= RIGHT or self.is_rounding(claim, near)
        return right and not self._splits_ties(claim)

    def _splits_ties(self, claim: Claim) -> bool:
        """Whether elements that tie for the largest are given more, or less, than the gradient of the largest one."""
        used = [u for u in self.case.forward if u.meta["operation"] in _LARGEST and claim.value in needed([u])]
        here = self.case.here
        sums = [float(g.sum()) for g in (here.values[claim.node], here.truth(claim.value))]
        return bool(used) and abs(sums[0] - sums[1]) > 1e-6 * float(here.truth(claim.value).abs().sum())

    # -- wrong by themselves ---------------------------------------------------------------------

    def _find(self) -> None:
        self.wrong.clear()
        for claim in self.known:
            row = self.rows.get(claim)
            if row is not None and row.status in ("right", "close"):
                continue
            above = self.above(claim)
            if self._is_wrong(claim, above):
                self.wrong.append(Wrong(claim, above, row, self._between(claim, above)))

    def _between(self, claim: Claim, above: list[Claim]) -> list[fx.Node]:
        given = self.case.forward | {c.node for c in above}
        return [n for n in needed([claim.node], given=given) if n not in given and n.op != "placeholder"]

    def _is_wrong(self, claim: Claim, above: list[Claim]) -> bool:
        if not above and claim.explicit:
            return True
        fed = self.case.fed(claim, above, self.case.here)
        truth = self.case.here.truth(claim.value)
        if fed is None or errors(fed, truth)[1] <= RIGHT:
            return fed is None
        if not self.case.tracked(claim):
            return True
        if self._splits_ties(claim):
            return True
        near = self.case.fed(claim, above, self.case.nearby)
        return near is None or errors(near, self.case.nearby.truth(claim.value))[1] > RIGHT

    def above(self, claim: Claim) -> list[Claim]:
        """The claims that this one reads, nearest only."""
        by_node = {c.node: c for c in self.known if c is not claim}
        found: list[Claim] = []
        seen: set[fx.Node] = set()
        stack = list(claim.node.all_input_nodes)
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in by_node:
                found.append(by_node[node])
            elif node not in self.case.forward:
                stack.extend(node.all_input_nodes)
        return found

    def _take_guesses(self) -> None:
        """A value on the way counts as the gradient that its name tells if it is that, or if what is computed from
        it would be right if it were."""
        self._take_handed()
        position = {node: i for i, node in enumerate(self.case.graph.nodes)}
        here = self.case.here
        for guess in sorted(self.case.guessed, key=lambda c: -position[c.node]):
            if guess.node not in here.values or errors(here.values[guess.node], here.truth(guess.value))[1] > RIGHT:
                readers = [c for c in self._wrong_rows() if guess in self.above_with(c, guess)]
                if not any(self._repaired(c, guess) for c in readers) or self._is_contradicted(guess):
                    continue
            self._take(guess)
        wrong = [c for c in self._wrong_rows() if self._is_wrong(c, self.above(c))]
        for claim in Placed(self.case, self.known).of(wrong):
            if not self._is_contradicted(claim):
                self._take(claim)

    def _is_contradicted(self, guess: Claim) -> bool:
        """Whether a gradient is right that would not be if this value were what its name tells: `dZ = A - Y`, where each
        reader divides by the batch size."""
        readers = [c for c in self.case.claims if self.rows[c].status in ("right", "close")]
        return any(guess in self.above_with(c, guess) and not self._repaired(c, guess) for c in readers)

    def _take_handed(self) -> None:
        """What layers hand to one another counts as gradients, unless more lines are wrong than right if it is that."""
        handed = self.case.handed
        for claim in handed:
            self._take(claim)
        readers = [c for c in self.case.claims if not set(handed).isdisjoint(self.above(c))]
        wrong = [c for c in readers if self._is_wrong(c, self.above(c))]
        contrary = any(self.rows[c].status in ("right", "close") for c in wrong)  # right, though from other gradients
        if not readers or contrary or 2 * len(wrong) > len(readers):
            self.known = [c for c in self.known if c not in handed]
        else:
            self.handed = handed

    def _take(self, claim: Claim) -> None:
        """Count a value on the way among the gradients."""
        position = {node: i for i, node in enumerate(self.case.graph.nodes)}
        self.known = sorted([*self.known, claim], key=lambda c: position[c.node])

    def _wrong_rows(self) -> list[Claim]:
        return [c for c in self.known if (row := self.rows.get(c)) is None or row.status not in ("right", "close")]

    def above_with(self, claim: Claim, guess: Claim) -> list[Claim]:
        self.known.append(guess)
        try:
            return self.above(claim)
        finally:
            self.known.remove(guess)

    def _repaired(self, claim: Claim, guess: Claim) -> bool:
        fed = self.case.fed(claim, self.above_with(claim, guess), self.case.here)
        return fed is not None and errors(fed, self.case.here.truth(claim.value))[1] <= RIGHT

    @cached_property
    def missing(self) -> list[fx.Node]:
        """Inputs that should have a gradient, and have none."""
        return missing_inputs(self.case)
