"""Gradients of values on the way that no name tells: what, were it such a gradient, would make a wrong line right."""

from __future__ import annotations

from collections.abc import Iterator, Set
from itertools import islice
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.locating.unnamed import is_opposite
from chainrule.diagnosis.reading.claim import Claim, guessed, names_meant
from chainrule.diagnosis.truth.case import Case, same
from chainrule.run import double, needed, step

_TRIED = 400  # pairs of a variable and a value on the way
_TURNS = 64


Pair = tuple[list[fx.Node], list[fx.Node]]  # a variable in each turn, and the values of which it should be the gradient


class Placed:
    """Looks for variables of the backward pass that stand where the gradient of a value on the way should."""

    def __init__(self, case: Case, known: list[Claim], of_data: Set[fx.Node] = frozenset()) -> None:
        """`of_data` are values of which nobody looks for a gradient."""
        self.case, self.known, self.of_data = case, known, of_data
        self._mended: dict[tuple[int, tuple[Claim, ...]], set[Claim]] = {}
        self._runs: dict[tuple[Claim, ...], tuple[list[fx.Node], dict[fx.Node, Any]]] = {}
        self._together: dict[Claim, tuple[Claim, ...]] = {}
        self._reads: dict[Claim, set[fx.Node]] = {}
        self._copies: set[fx.Node] = set()  # of what is right under its first name

    def of(self, wrong: list[Claim]) -> list[Claim]:
        """The variables that make most of `wrong` right if each is the gradient of a value: in all turns of a loop."""
        pairs = [p for p in islice(self._pairs(wrong), _TRIED) if any(bool(t.any()) for t in self._truth(p).values())]
        self._together = self._independent(wrong)
        found: list[Claim] = []
        open_ = list(wrong)
        while open_ and (best := self._best(pairs, open_)) is not None:
            pair, repaired = best
            names = self.case.names  # each of one value
            found += [guessed(n, v, names.get(v) or str(n.meta["name"])) for n, v in zip(*pair, strict=True)]
            used = {*pair[0], *pair[1]}
            pairs = [p for p in pairs if used.isdisjoint((*p[0], *p[1]))]
            open_ = [c for c in open_ if c not in repaired]
        return found

    def _best(self, pairs: list[Pair], wrong: list[Claim]) -> tuple[Pair, list[Claim]] | None:
        """The pair that mends most, first of those that mend all that reads the variable; in a loop another mistake may
        stand further on."""
        for all_readers in (True, False):
            best: tuple[Pair, list[Claim]] | None = None
            for pair in pairs:
                repaired = [c for c in wrong if self._mends(pair, c)]
                readers = [c for c in wrong if not set(pair[0]).isdisjoint(self._read(c))]
                enough = not all_readers or len(pair[0]) > 1 or len(readers) == len(repaired)
                enough = enough and (len(repaired) > 1 or pair[0][0] not in self._copies)
                if repaired and enough and (best is None or len(repaired) > len(best[1])):
                    best = pair, repaired
                if best is not None and len(best[1]) == len(wrong):
                    break
            if best is not None:
                return best
        return None

    def _mends(self, pair: Pair, claim: Claim) -> bool:
        together = self._together[claim]
        key = (id(pair), together)
        if key not in self._mended:
            self._mended[key] = self._right(together, self._truth(pair))
        return claim in self._mended[key]

    def _independent(self, wrong: list[Claim]) -> dict[Claim, tuple[Claim, ...]]:
        """Each claim with those that can be computed in one run with it: none is computed from another one."""
        reads = {c: {n for node in self._run((c,))[0] for n in node.all_input_nodes} for c in wrong}
        alone = [c for c in wrong if any(d is not c and (c.node in reads[d] or d.node in reads[c]) for d in wrong)]
        others = tuple(c for c in wrong if c not in alone)
        return {**dict.fromkeys(others, others), **{c: (c,) for c in alone}}

    def _truth(self, pair: Pair) -> dict[fx.Node, torch.Tensor]:
        return {n: self.case.here.truth(v) for n, v in zip(*pair, strict=True)}

    def _read(self, claim: Claim) -> set[fx.Node]:
        if claim not in self._reads:
            self._reads[claim] = set(needed([claim.node], given=self.case.forward))
        return self._reads[claim]

    def _pairs(self, wrong: list[Claim]) -> Iterator[tuple[list[fx.Node], list[fx.Node]]]:
        """A variable of the person's in each turn, the earliest first; and a value of the forward pass, the last turn
        first. Those that the names tell come first; what is right already is none."""
        values, variables = self._values(), self._variables(wrong)
        copied = {n.meta.get("same_as") for turns in variables for n in turns}
        found: list[tuple[tuple[bool, bool], list[fx.Node], list[fx.Node]]] = []
        open_, parts = set[fx.Node](), self._parts(variables)
        for turns in sorted(variables, key=lambda turns: "same_as" in turns[0].meta):
            source = turns[0].meta.get("same_as")
            if source in open_ - parts and set(source.users) <= set(turns):
                continue  # `dh = dprev`: what stands there is wrong already
            fitting = list(_alongside(turns, values))
            others = [p for p in fitting if not all(self._is(n, v) for n, v in zip(*p, strict=True))]
            if len(others) < len(fitting):
                if source is None:
                    continue
                fitting = others  # `dy = do` is another gradient than `do`, perhaps
                self._copies.add(turns[0])
            begun = [(ns, vs) for ns, vs in fitting if turns[0] in copied and self._is(ns[0], vs[0])]
            fitting = begun or fitting  # `dz = dh` makes a right value a wrong one
            if fitting and not begun:
                open_.add(turns[0])
            for ns, vs in fitting:
                told = any(n.meta.get("name") in names_meant(turns[0].meta["name"]) for n in vs)
                found.append(((not told, turns[0] in parts), ns, vs))
        for _, turns, vs in sorted(found, key=lambda f: f[0]):
            yield turns, vs

    def _parts(self, variables: list[list[fx.Node]]) -> set[fx.Node]:
        """What stands alone under another name, `dx = dx1`, and may be a part of that gradient: where it is added to
        something elsewhere, or something of its shape, `dx2`, is read nowhere."""
        case, place = self.case, {n: i for i, n in enumerate(self.case.graph.nodes)}
        given = {c.node for c in self.known}
        unread = [n for n in case.theirs if n.meta.get("name") and not n.users and n not in given and _is_floating(n)]
        found = set[fx.Node]()
        for copy in (turns[0] for turns in variables if "same_as" in turns[0].meta):
            source, shape = copy.meta["same_as"], copy.meta["val"].shape
            left = any(n.meta["val"].shape == shape and place[n] < place[copy] for n in unread)
            if left or any(u.meta["operation"] == "add" and _all_named(u) for u in source.users):
                found.add(source)
        return found

    def _is(self, node: fx.Node, value: fx.Node) -> bool:
        return same(self.case.here.values.get(node), self.case.here.truth(value))

    def _variables(self, wrong: list[Claim]) -> list[list[fx.Node]]:
        given = {c.node for c in self.known}
        read = needed([c.node for c in wrong], given=self.case.forward)
        groups: dict[object, list[fx.Node]] = {}
        for node in read:
            spot = node.meta.get("spot")
            theirs = node.meta.get("name") and node not in self.case.forward and node not in given
            theirs = theirs and self.case.in_backward(node)
            if spot is not None and theirs and _is_floating(node):
                groups.setdefault((spot.code, spot.index, spot.call), []).append(node)
                groups.setdefault((spot.code, spot.index), []).append(node)  # in each call of a loop
        return [list(g) for g in dict.fromkeys(tuple(g) for g in groups.values()) if len(g) <= _TURNS]

    def _values(self) -> list[list[fx.Node]]:
        """What the loss was computed from and has a gradient that nobody wrote, in the order of the backward pass."""
        claimed = {c.value for c in self.known}
        groups: dict[object, list[fx.Node]] = {}
        for node in reversed(needed([self.case.base.output])):
            spot = node.meta.get("spot")
            if (
                node.op != "placeholder"
                and node in self.case.base.gradients
                and node not in claimed
                and node not in self.of_data
                and _is_floating(node)
                and not is_opposite(node)
            ):
                place = (spot.code, spot.index, node.target, spot.caller) if spot is not None else node
                groups.setdefault(place, []).append(node)
        named = sorted(groups.values(), key=lambda g: not any(n.meta.get("name") for n in g))
        found: dict[object, list[fx.Node]] = {}
        for several in named:  # the terms of a sum have the gradient of the sum
            found.setdefault(tuple(self.case.base.gradients[n] for n in several), several)
        return list(found.values())

    def _right(self, claims: tuple[Claim, ...], truth: dict[fx.Node, torch.Tensor]) -> set[Claim]:
        """Those of the claims that would be right with these gradients; only what reads them is computed again."""
        nodes, before = self._run(claims)
        values = {**before, **truth}
        changed = set(truth)
        with torch.no_grad():
            for node in nodes:
                if node not in truth and not changed.isdisjoint(node.all_input_nodes):
                    values[node] = _step(node, values)
                    changed.add(node)
        return {c for c in claims if same(values.get(c.node), self.case.here.truth(c.value))}

    def _run(self, claims: tuple[Claim, ...]) -> tuple[list[fx.Node], dict[fx.Node, Any]]:
        """What claims are computed from, in order, and its values with the known gradients as they should be."""
        if claims not in self._runs:
            case = self.case
            given = {c.node: case.here.truth(c.value) for c in self.known if c not in claims}
            values = {n: v for n, v in case.here.values.items() if n in case.forward} | given
            roots = [c.node for c in claims]
            nodes = [n for n in needed(roots, given=values) if n not in values and n.op != "placeholder"]
            with torch.no_grad():
                for node in nodes:
                    values[node] = _step(node, values)
            self._runs[claims] = nodes, values
        return self._runs[claims]


def _step(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """The value of a node; None where it, or what it reads, is of another shape than it should have."""
    try:
        return step(node, values, double)
    except (RuntimeError, IndexError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _alongside(turns: list[fx.Node], values: list[list[fx.Node]]) -> Iterator[Pair]:
    """The values of each turn, last or first turn first; and those of the turn before, of which a loop carries the
    gradient on."""
    for several in values:
        count, late = len(turns), len(several) - len(turns)
        choices = [(turns, several)] if not late else [(turns, several[:-1]), (turns, several[1:])] if late == 1 else []
        choices += [(turns[:-1], several[1:])] if not late and count > 2 else []
        choices += [(turns, several[::-1])] if not late and count > 1 else []  # of turns that are independent
        for ns, vs in choices:
            if [n.meta["val"].shape for n in ns] == [v.meta["val"].shape for v in vs]:
                yield ns, vs


def _all_named(node: fx.Node) -> bool:
    return all(n.meta.get("name") for n in node.all_input_nodes)


def _is_floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point and value.numel() > 1
