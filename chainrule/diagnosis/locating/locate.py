"""Which lines are wrong by themselves: each is fed the right gradients of the values above it."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.locating.missing import missing_inputs, of_data_alone
from chainrule.diagnosis.locating.placed import Placed
from chainrule.diagnosis.locating.rows import Rows
from chainrule.diagnosis.locating.unnamed import is_opposite, shared_gradient
from chainrule.diagnosis.reading.claim import Claim, guessed, names_meant
from chainrule.diagnosis.report import Row
from chainrule.diagnosis.truth.case import RIGHT, Case, Point, errors, same
from chainrule.diagnosis.truth.convention import Convention, ratio_of
from chainrule.run import needed


@dataclass(eq=False)
class Wrong:
    """A claim that is wrong given the claims that it was computed from."""

    claim: Claim
    above: list[Claim]
    row: Row | None
    mine: list[fx.Node]  # what computes it from the claims above and the forward pass, in order

    def is_within(self, function: Any) -> bool:
        """Whether a function computes it, and the gradients above it, itself: nothing is handed on on the way."""
        spots = [n.meta.get("spot") for n in [*self.mine, *(c.node for c in self.above)]]
        code = getattr(function, "__code__", None)
        return bool(self.above) and all(s is not None and s.code is code for s in spots)

    def shares(self, other: Wrong) -> bool:
        """Whether both may have one reason: a value on the way that both read, or one line."""
        spots = [w.claim.spot for w in (self, other)]
        if all(s is not None for s in spots) and (spots[0].code, spots[0].index) == (spots[1].code, spots[1].index):  # type: ignore[union-attr]
            return True
        if not set(self.mine).isdisjoint(other.mine) or other.claim in self.above:
            return True
        return not self.helped.keys().isdisjoint(other.helped)

    @cached_property
    def helped(self) -> dict[tuple[types.CodeType, int], list[fx.Node]]:
        """The operations of functions that the line calls, by their places there: others may call the same ones."""
        found: dict[tuple[types.CodeType, int], list[fx.Node]] = {}
        for node in self.mine:
            spot, own = node.meta.get("spot"), self.claim.spot
            if spot is not None and own is not None and spot.code is not own.code:
                found.setdefault((spot.code, spot.index), []).append(node)
        return found

    def is_turn_of(self, other: Wrong) -> bool:
        """Whether both are one line, in two turns of a loop."""
        one, two = (w.claim.spot for w in (self, other))
        return (
            one is not None and two is not None and (one.code, one.index, one.call) == (two.code, two.index, two.call)
        )

    def common(self, others: Sequence[Wrong]) -> set[fx.Node]:
        """The operations that others have, too: the same values, or the same places of a function that both call."""
        common = set(self.mine).intersection(n for w in others for n in w.mine)
        places = self.helped.keys() & {place for w in others for place in w.helped}
        return common.union(n for place in places for n in self.helped[place])


class Located(Rows):
    """Rows for all explicit claims; the claims that are wrong by themselves; the inputs that have none."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.known = list(case.claims)
        self.wrong: list[Wrong] = []
        self.handed: list[Claim] = []  # of what layers are given, and what they return
        self.contrary = False  # whether gradients are right that would not be if that were a gradient
        if self._wrong_rows() or (case.hand.calls and self.missing):
            self._take_guesses()
            self._find()
            while (shared := shared_gradient(case, self.wrong, self.known)) is not None:
                self._take(shared)
                self._find()
            self._take_right()

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
        self.wrong += list(self._hidden_by_another())

    def _hidden_by_another(self) -> Iterator[Wrong]:
        """What is right only as a gradient that it reads is wrong: `b.g = h.g.mean(0)`, where h.g lacks `/ n`. That one is
        no other convention where what else reads it is wrong for it alone."""
        by_themselves = {w.claim for w in self.wrong}
        wrong_rows = {c for c in self._wrong_rows() if c in self.rows}
        spoiled = {p for c in wrong_rows - by_themselves for p in self.above(c)} & (wrong_rows | by_themselves)
        for claim in self.known if spoiled else ():
            above = self.above(claim)
            row = self.rows.get(claim)
            if row is not None and claim not in wrong_rows and spoiled & set(above) and self._is_wrong(claim, above):
                yield Wrong(claim, above, row, self._between(claim, above))

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
        if self.splits_ties(claim):
            return True
        points = [p for p in (self.case.off_kinks, self.case.unguarded) if p is not None]  # as for a row
        return not any(self._is_right_at(p, claim, above) for p in points)

    def _is_right_at(self, point: Point, claim: Claim, above: list[Claim]) -> bool:
        fed = self.case.fed(claim, above, point)
        return fed is not None and errors(fed, point.truth(claim.value))[1] <= RIGHT

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
        taken = {v for c in self.handed for v in (c.node, c.value)}
        guesses = [c for c in self.case.guessed if taken.isdisjoint((c.node, c.value))]
        for guess in sorted(guesses, key=lambda c: -position[c.node]):
            if guess.node not in here.values or errors(here.values[guess.node], here.truth(guess.value))[1] > RIGHT:
                readers = [c for c in self._wrong_rows() if guess in self.above_with(c, guess)]
                if not any(self._repaired(c, guess) for c in readers) or self._is_contradicted(guess):
                    continue
            self._take(guess)
        wrong = [c for c in self._wrong_rows() if self._is_wrong(c, self.above(c))]
        for claim in Placed(self.case, self.known, self.of_data).of(wrong):
            if not self._is_contradicted(claim):
                self._take(claim)

    def _take_right(self) -> None:
        """What has a name, and is the gradient of a value once those above are right, counts as one: in a loop, a mistake
        in one turn makes it wrong in the next."""
        case, known, found = self.case, {c.node for c in self.known}, list[Claim]()
        named = [n for n in case.theirs if n.meta.get("name") and n not in known]
        nodes = [n for n in named if "same_as" not in n.meta]  # `dz = dh` may be the mistake, right as dh is
        fed = case.fed_values(nodes, self.known, case.here) if self.wrong and nodes else {}
        truths: dict[torch.Size, list[tuple[fx.Node, torch.Tensor]]] = {}
        passed = {c.value for c in self.known} | self.of_data
        for value in (v for v in case.base.gradients if v not in passed and not is_opposite(v)):
            truths.setdefault((truth := case.here.truth(value)).shape, []).append((value, truth))
        for node in nodes:
            held = fed.get(node)
            if not isinstance(held, torch.Tensor) or held.numel() < 2 or not bool(held.any()):
                continue
            alike = [(v, t) for v, t in truths.get(held.shape, ()) if _begin_alike(held, t)]
            right = [v for v, t in alike if same(held, t)]
            told = [v for v in right if v.meta.get("name") in names_meant(node.meta["name"])]
            for value in (told or [v for v in right if not v.meta.get("name")])[:1]:
                found.append(guessed(node, value, case.names.get(value) or str(node.meta["name"])))
        for claim in found:
            self._take(claim)
        if found:
            self._find()

    def _is_contradicted(self, guess: Claim) -> bool:
        """Whether a gradient is right that would not be if this value were what its name tells: `dZ = A - Y`, where each
        reader divides by the batch size."""
        readers = [c for c in self.known if guess in self.above_with(c, guess)]
        return any(self._is_right(c) and not self._repaired(c, guess) for c in readers)

    def _is_right(self, claim: Claim) -> bool:
        """Whether a gradient is right, as it stands or given those above it."""
        row = self.rows.get(claim)
        return (row is not None and row.status in ("right", "close")) or not self._is_wrong(claim, self.above(claim))

    def _take_handed(self) -> None:
        """What layers hand to one another counts as gradients, unless more lines are wrong than right if it is that."""
        handed = [self._where_made(c) for c in self.case.handed if not self._is_kept(c.node)]
        for claim in handed:
            self._take(claim)
        self.case.convention = self._convention(handed)
        readers = [c for c in self.case.claims if not set(handed).isdisjoint(self.above(c))]
        wrong = [c for c in readers if self._is_wrong(c, self.above(c))]
        self.contrary = any(self._is_right_from_others(c) for c in handed)
        contrary = self.contrary or any(self.rows[c].status in ("right", "close") for c in wrong)
        if not readers or contrary or 2 * len(wrong) > len(readers):
            self.known = [c for c in self.known if c not in handed]
            self.case.convention = None
        else:
            self.handed = handed

    def _convention(self, handed: list[Claim]) -> Convention | None:
        """The number by which gradients of parameters are too small, if what they are computed from is right: of one that is
        right as it stands, or of all that are wrong, on several lines."""
        made = [c for c in handed if c.node not in self.case.forward and c.spot is not None]
        on_the_way = {(c.spot.code, c.spot.index) for c in made if c.value.op != "placeholder" and c.spot is not None}
        shared = {c.value for c in made if c.spot is not None and (c.spot.code, c.spot.index) in on_the_way}
        known = [*made, *(c for c in self.case.claims if c.spot is not None)]
        of_inputs = [c for c in known if c.value.op == "placeholder" and c.value not in shared]
        above = {c: tuple(self.above(c)) for c in of_inputs}
        off = [c for c in of_inputs if above[c] and self._is_wrong(c, list(above[c]))]
        right = [c for c in off if self._is_right_here(c)]
        one_line = len({c.spot.line for c in off if c.spot is not None}) < 2
        as_they_are = any(c.value.op != "placeholder" and self._is_right_here(c) for c in made)
        told = right or ([] if one_line or as_they_are else off)
        ratios = {ratio_of(self.case, c, above[c], self.case.here) for c in told}
        sizes = {round(1 / r, 6) for r in ratios if r}
        if None in ratios or len(sizes) != 1 or not (size := sizes.pop()).is_integer() or size < 2:
            return None
        return Convention(tuple((c, above[c]) for c in told), frozenset(n for n in shared if n.op == "placeholder"))

    def _is_right_here(self, claim: Claim) -> bool:
        return same(self.case.here.values.get(claim.node), self.case.here.truth(claim.value))

    def _is_kept(self, node: fx.Node) -> bool:
        """Whether it is a value of the forward pass that is handed on as it is: the output, `L_model_backward(AL, Y, ...)`."""
        while (of := node.meta.get("same_as")) is not None:
            node = of
        return node in self.case.forward and node.op != "placeholder"

    def _is_right_from_others(self, claim: Claim) -> bool:
        """Whether a gradient is right, and would be a number times that if those that it is computed from were."""
        held, truth, above = self.case.here.values.get(claim.node), self.case.here.truth(claim.value), self.above(claim)
        if not same(held, truth) or claim.node in self.case.forward or not self._is_wrong(claim, above):
            return False
        return ratio_of(self.case, claim, tuple(above), self.case.here) is not None

    def _where_made(self, claim: Claim) -> Claim:
        """What is handed on, on the line that made it, unless that is another gradient, which was handed on instead."""
        made, here = next(iter(claim.node.all_input_nodes), None), self.case.here
        if (
            made is None
            or "same_as" not in claim.node.meta
            or made in self.case.forward
            or made.meta.get("spot") is None
            or made.op == "placeholder"
        ):
            return claim
        values = [v for v in self.case.base.gradients if v.meta["val"].shape == made.meta["val"].shape]
        known = any(c.node is made for c in [*self.known, *self.case.handed]) or "handed" in made.meta
        copied = "same_as" in made.meta  # `dy = da`
        if known or (not copied and any(same(here.values.get(made), here.truth(v)) for v in values)):
            return claim
        return guessed(made, claim.value, claim.name)

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

    @cached_property
    def of_data(self) -> set[fx.Node]:
        """Values of which nobody looks for a gradient."""
        return of_data_alone(self.case, self.missing)


def _begin_alike(held: torch.Tensor, truth: torch.Tensor) -> bool:
    """Whether two tensors may be equal, by their first elements: a question that costs nothing."""
    one, other = held.flatten()[0].item(), truth.flatten()[0].item()
    return abs(one - other) <= 1e-6 * float(truth.abs().max())
