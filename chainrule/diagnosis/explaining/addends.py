"""A gradient that is added up, in turns or over several lines: which of the person's terms is none of the right one's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import WRAPPED, Mutation
from chainrule.diagnosis.explaining.search import Search
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.paths import lost_from
from chainrule.diagnosis.truth.case import Case, same

_MOST = 16  # terms, each of which takes a run
_TOGETHER = 3  # terms of the right gradient that one of the person's may be
_ADDS = frozenset(("add", "sub"))
_WRITES = frozenset(("select_scatter", "slice_scatter", "index_put", "setitem"))
_SAME = frozenset(("getitem", "select", "clone", "alias", "to", "narrow"))

Group = list[fx.Node]  # terms that one step gives, one in each turn


@dataclass
class _Term:
    """What one piece of the person's source adds, in each turn; and the operations that stand there."""

    nodes: Group
    at: Group


class Addends:
    """The person's terms beside those of the right gradient, the turns of a loop taken together."""

    def __init__(self, case: Case, search: Search, gradient: fx.Node, known: Iterable[Claim]) -> None:
        """`known` are the person's gradients that are right on every trial, those first that the sum reads."""
        self.case, self.search, self.gradient = case, search, gradient
        self.named: dict[fx.Node, list[fx.Node]] = {}  # the person's, by the right one
        for claim in known:
            if claim.value in case.base.gradients:
                self.named.setdefault(case.base.gradients[claim.value], []).append(claim.node)
        self.matched: list[tuple[_Term, list[Group]]] = []
        self.wrong: list[_Term] = []  # the person's terms that are none of the right ones
        self.lost: list[Group] = []  # the right ones that the person does not have
        self.theirs, self.empty = self._theirs()
        signed = self._right()
        if 2 <= len(signed) <= _MOST and 1 <= len(self.theirs) <= _MOST:
            self._match(signed)

    # -- terms -------------------------------------------------------------------------------------

    def _theirs(self) -> tuple[list[_Term], fx.Node | None]:
        """The terms of the person's sum; and what it begins with, where that is nothing."""
        terms: dict[Any, _Term] = {}
        for node, at in self._leaves():
            spot = at.meta.get("spot")
            key = (spot.code, spot.index, node.target, node.meta.get("span")) if spot is not None else node
            term = terms.setdefault(key, _Term([], []))
            term.nodes.append(node)
            term.at.append(at)
        values = self.search.trials[0].values
        empty = [t for t in terms.values() if not any(bool(values[n].any()) for n in t.nodes)]
        begins = next((t.nodes[0] for t in empty if len(t.nodes) == 1 and t.nodes == t.at), None)
        return [t for t in terms.values() if t not in empty], begins

    def _leaves(self) -> Iterator[tuple[fx.Node, fx.Node]]:
        """What the person's sum is made of; each with itself, or with what adds it where it was computed elsewhere."""
        values, inside = self.search.trials[0].values, self.search.position
        seen, stack = set[fx.Node](), [(self.search.root, self.search.root)]
        while stack:
            node, reader = stack.pop()
            if node in seen or not isinstance(value := values.get(node), torch.Tensor):
                continue
            seen.add(node)
            operation, read = node.meta["operation"], [a for a in node.args[:3] if isinstance(a, fx.Node)]
            adds = operation in _ADDS or operation in _WRITES
            if node in inside and (adds or (operation in _SAME and read[:1] and read[0] in inside)):
                stack += [(a, node) for a in (read if adds else read[:1])]
            elif value.is_floating_point():
                yield node, node if node in inside else reader

    def _right(self) -> list[tuple[Group, float]]:
        """The terms of the right gradient, each with its sign: of one step of the forward pass, in every turn."""
        passed = {
            n: (by, place)
            for by in self.case.forward
            for place, ns in enumerate(by.meta.get("passes", {}).values())
            for n in ns
        }
        groups: dict[Any, tuple[Group, float]] = {}
        stack = [(self.gradient, 1.0)]
        while stack:
            node, sign = stack.pop()
            operation = node.meta["operation"]
            if node.meta["phase"] == "backward" and operation in _ADDS and len(node.args) == 2:
                one, other = node.args
                if isinstance(one, fx.Node) and isinstance(other, fx.Node):
                    stack += [(one, sign), (other, -sign if operation == "sub" else sign)]
                    continue
            by, place = passed.get(node, (node, 0))
            spot = by.meta.get("spot")
            key = (spot.code, spot.index, by.target, by.meta.get("span"), place, sign) if spot is not None else node
            groups.setdefault(key, ([], sign))[0].append(node)
        return list(groups.values())

    # -- what is whose -----------------------------------------------------------------------------

    def _match(self, signed: list[tuple[Group, float]]) -> None:
        goal = self.search.trials[0].goal.shape
        right = []
        for group, sign in signed:
            values = [[t.values[n] for n in group if n in t.values] for t in self.search.trials]
            if not all(len(vs) == len(group) and all(v.shape == goal for v in vs) for vs in values):
                return
            right.append((group, [sign * torch.stack(vs).sum(0) for vs in values]))
        for theirs in self.theirs:
            parts = self._parts(theirs.nodes)
            if parts is None:
                return
            found = next((c for k in range(1, _TOGETHER + 1) for c in combinations(right, k) if _is(parts, c)), None)
            if found is None:
                self.wrong.append(theirs)
                continue
            self.matched.append((theirs, [group for group, _ in found]))
            right = [r for r in right if all(r is not f for f in found)]
        self.lost = [group for group, values in right if any(bool(v.any()) for v in values)]

    def _parts(self, group: Group) -> list[torch.Tensor] | None:
        """What a term of the person's contributes, on every trial."""
        found = []
        for trial in self.search.trials:
            whole = trial.values.get(self.search.root)
            without = self.search.outcome([(n, torch.zeros_like(trial.values[n])) for n in group], trial)
            if not isinstance(whole, torch.Tensor) or getattr(without, "shape", None) != whole.shape:
                return None
            found.append(whole - without)
        return found

    # -- what follows ------------------------------------------------------------------------------

    @property
    def place(self) -> fx.Node | None:
        """Where the mistake is: the term that is wrong, or beside which another is lost, or where the sum begins."""
        if len(self.wrong) == 1:
            return self.wrong[0].at[-1]
        if self.wrong or not self.lost:
            return None
        return self._beside.at[-1] if self._beside is not None else self.empty

    @cached_property
    def _beside(self) -> _Term | None:
        """The person's term that is computed from the gradients from which the lost one should be."""
        read = self._gradients_of(n for group in self.lost for n in group)
        alike = (t for t, ours in self.matched if read & self._gradients_of(n for group in ours for n in group))
        return next(alike, None)

    def _gradients_of(self, nodes: Iterable[fx.Node]) -> set[fx.Node]:
        """The person's gradients that terms are computed from, nearest only."""
        found, seen, stack = set[fx.Node](), set[fx.Node](), list(nodes)
        while stack:
            node = stack.pop()
            if node in self.named:
                found.add(node)
            elif node not in seen and node.meta["phase"] == "backward":
                seen.add(node)
                stack.extend(node.all_input_nodes)
        return found

    def begun(self) -> Iterator[Mutation]:
        """The one term that is lost, in the place of the nothing that the sum begins with."""
        if self.empty is not None and self.place is self.empty and len(self.lost) == 1 and len(self.lost[0]) == 1:
            (term,) = self.lost[0]
            by = self._in_their_names(term, self.empty)
            if by.meta["phase"] != "sketch":  # what is added to it in place is not added to the value itself
                by = self.search.around.sketches.method("clone", by)
            yield Mutation(self.empty, by, lost_from(term.users), WRAPPED + 0.5)

    def repairs(self) -> Iterator[Mutation]:
        """The one term that is lost, in every turn, beside the one that reads the same gradients."""
        beside, lost, sketches = self._beside, self.lost[0] if self.lost else [], self.search.around.sketches
        if beside is None or self.wrong or len(self.lost) != 1 or len(beside.nodes) != len(lost):
            return
        for order in (lost, lost[::-1]):
            pairs = zip(beside.nodes, order, strict=True)
            changes = [(n, sketches.operation("add", n, self._in_their_names(term, n))) for n, term in pairs]
            yield Mutation(*changes[-1], lost_from(lost[0].users), WRAPPED + 0.5, changes=changes)

    def _in_their_names(self, node: fx.Node, at: fx.Node) -> fx.Node:
        """A term of the right gradient, computed from the person's gradients that were there at a place."""
        sketches, place = self.search.around.sketches, {n: i for i, n in enumerate(self.case.graph.nodes)}
        made = {g: before[0] for g, ns in self.named.items() if (before := [n for n in ns if place[n] < place[at]])}

        def of(n: fx.Node) -> Any:
            factors = n.args if n.meta["operation"] == "mul" and n not in made else ()
            rest = [a for a in factors if not isinstance(a, fx.Node) or not self._is_one(a)]
            if len(rest) == 1 < len(factors):  # times the gradient of the loss
                (factor,) = rest
                if not isinstance(factor, fx.Node):
                    return factor
                if getattr(factor.meta["val"], "shape", None) == n.meta["val"].shape:
                    return of(factor)
            if n.meta["operation"] == "expand" and not isinstance(number := of(n.args[0]), fx.Node):  # type: ignore[arg-type]
                return number  # stretches by itself
            if n not in made and n.meta["phase"] == "backward" and n.op != "placeholder":
                made[n] = sketches.like(n, fx.map_arg(n.args, of), fx.map_arg(dict(n.kwargs), of))
            return made.get(n, n)

        by: fx.Node = of(node)
        return by

    def _is_one(self, node: fx.Node) -> bool:
        values = [t.values.get(node) for t in self.search.trials]
        return (node.meta["phase"] == "backward" or node is self.case.base.upstream) and all(
            isinstance(v, torch.Tensor) and bool((v == 1).all()) for v in values
        )


def _is(parts: list[torch.Tensor], chosen: Iterable[tuple[Group, list[torch.Tensor]]]) -> bool:
    return all(same(part, sum(vs)) for part, *vs in zip(parts, *(values for _, values in chosen), strict=True))
