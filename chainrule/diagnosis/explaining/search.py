"""The search: which small change to a slice of the graph gives the numbers that are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining import ratios, wraps
from chainrule.diagnosis.explaining.called import turned_arguments
from chainrule.diagnosis.explaining.exchanges import exchanged, given, right_factors, right_results
from chainrule.diagnosis.explaining.mutation import WRAPPED, Around, Mutation
from chainrule.diagnosis.explaining.mutations import mutations
from chainrule.diagnosis.explaining.projections import projections
from chainrule.diagnosis.explaining.scales import Named, Scales
from chainrule.diagnosis.explaining.turns import in_every_turn
from chainrule.diagnosis.truth.case import same
from chainrule.diagnosis.truth.sketch import value_of
from chainrule.run import double, step
from chainrule.work import work

FAILURES = (RuntimeError, ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError, AttributeError)

_SECONDS = 1.2  # of work, after which a search ends with what it has
_LAST = 0.5
_ONLY_HERE = 3.0  # how strange it is that a change works for the given sizes alone
_BY_CHANCE = frozenset(  # causes that say nothing where a longer way comes to zero
    (
        "wrong-tensor",
        "wrong-factor",
        "wrong-mask",
        "wrong-term-scale",
        "transposed",
        "missing-term",
        "missing-broadcast-sum",
    )
)
_OF_TERMS = frozenset(
    ("wrong-scale", "sign", "missing-term", "missing-broadcast-sum")
)  # which enter a gradient linearly
_LONG = 40  # operations of a slice, such as a loop gives, in which not everything is tried
_ALIKE = 4  # operations of one kind that are changed together


@dataclass
class Trial:
    """One choice of the inputs: what is known, and what the slice should give."""

    values: dict[fx.Node, Any]
    goal: torch.Tensor


class Search:
    """Changes to the nodes of a slice that make its root what it should be, on every trial."""

    def __init__(
        self,
        nodes: list[fx.Node],
        root: fx.Node,
        trials: list[Trial],
        around: Around,
        factors: Iterable[fx.Node] = (),
        resized: Trial | None = None,
        beside: Iterable[fx.Node] = (),
        seconds: float = _SECONDS,
    ) -> None:
        """`nodes` are those that may be changed, in order; every other value is in the trials. `beside` are values that
        a change may read, computed from those, with them in order. What fails for other sizes, as `resized` has them,
        counts only if nothing else is found."""
        self.resized = resized
        self.nodes, self.root, self.trials, self.around = nodes, root, trials, around
        self.order = list(beside) or nodes
        self.factors = list(factors)
        made = [n for n in [*self.factors, *around.sizes, *chain(*around.areas)] if n.meta["phase"] == "sketch"]
        for trial in [*trials, *([resized] if resized is not None else [])]:
            trial.values.update({n: value_of(n, trial.values) for n in made})
        self.position = {node: i for i, node in enumerate(self.order)}
        other = resized.values if resized is not None else None
        self.scales = Scales(around, other)
        self.found: list[Mutation] = []
        self.only_here: list[Mutation] = []  # what works for these sizes alone
        self.shaped = bool(trials) and getattr(trials[0].values.get(root), "shape", None) == trials[0].goal.shape
        self.until = min(work() + seconds, around.until)

    def run(self, suspects: Iterable[fx.Node] = ()) -> None:
        """Try every change of an operation, then what can be put around a value; what stands on a suspected line first.

        In a long slice no others are tried once such a change is found.
        """
        groups, first = self._groups(), set(suspects)
        suspected = [g for g in groups if not first.isdisjoint(g)]
        others = [g for g in groups if first.isdisjoint(g)]
        with torch.no_grad():
            if suspected and others:
                self._changed(suspected)
                self._wrapped(suspected)
                if len(self.nodes) > _LONG and self._has(WRAPPED + 2):
                    return
            self._changed(others or suspected)
            self.try_all(wraps.reshaped(self))
            if not self._has(WRAPPED):
                self.try_all(exchanged(self.nodes, self.around))
                self.try_all(given(self.nodes, self.root, self.around))
                self.try_all(turned_arguments(self.nodes, self.root, self.around))
            self._wrapped(others or suspected or [[self.root]])
            if not self.found:
                for group in groups:
                    self._try_turns(group, ratios.scaled_operands(self, group[-1]))
            if not self.found:
                for group in groups:
                    self._try_turns(group, right_factors(group[-1], self.factors, self.around))
                    self._try_turns(group, right_results(group[-1], self.factors, self.around))
                self.try_all(self._alike())
            if not self.found:
                for group in groups:
                    self._try_turns(group, projections(self, group[-1]))

    def last_moments(self) -> None:
        """Time for a few more, which a large network needs for each."""
        self.until = max(self.until, work() + _LAST)

    def _has(self, weight: float) -> bool:
        return any(m.weight < weight for m in self.found)

    def _changed(self, groups: list[list[fx.Node]]) -> None:
        for group in groups:
            self._try_turns(group, mutations(group[-1], self.around))
            self._try_turns(group, ratios.scaled(self, group))
            self._try_turns(group, ratios.shifted(self, group))
            self.try_all(ratios.scaled_together(self, group) if len(group) > 1 else iter(()))

    def _wrapped(self, groups: list[list[fx.Node]]) -> None:
        if not self._has(WRAPPED + 1):
            for derived in (True, False):
                for group in groups:
                    self._try_turns(group, wraps.factors(self, group[-1], derived))
            for group in groups:
                self._try_turns(group, wraps.sums(self, group[-1]))
                self._try_turns(group, wraps.ones(self, group[-1]))
                self._try_turns(group, wraps.complements(self, group[-1]))  # in names, where a factor has none here
        if not self.found:
            for group in groups:
                self._try_turns(group, wraps.terms(self, group[-1]))
                self._try_turns(group, wraps.activated(self, group[-1]))

    def _alike(self) -> Iterator[Mutation]:
        """The same change to every product of the line, or to every sum."""
        for operation in ("matmul", "sum", "mean"):
            nodes = [n for n in self.nodes if n.meta["operation"] == operation]
            if not 2 <= len(nodes) <= _ALIKE:
                continue
            for several in zip(*(mutations(n, self.around) for n in nodes), strict=False):
                last = several[-1]
                if all((m.repairs, m.weight) == (last.repairs, last.weight) for m in several):
                    changes = [pair for m in several for pair in m.changes]
                    yield Mutation(last.at, last.by, last.repairs, last.weight + 2, last.makes, changes)

    @property
    def best(self) -> list[Mutation]:
        """The changes that work, nearest first."""
        return sorted(self.found or self.only_here, key=lambda m: m.weight)

    def _groups(self) -> list[list[fx.Node]]:
        """The nodes that one piece of source gave: several where it stands in a loop. The last first."""
        found: dict[Any, list[fx.Node]] = {}
        for node in self.nodes:
            spot = node.meta.get("spot")
            axes = getattr(node.meta["val"], "ndim", 0)  # `x[i, j] = y` is a write into a row, and one of the row
            place = (spot.code, spot.index, node.target, node.meta.get("span"), axes) if spot is not None else node
            found.setdefault(place, []).append(node)
        return list(found.values())[::-1]

    def _try_turns(self, group: list[fx.Node], candidates: Iterator[Mutation]) -> None:
        self.try_all(in_every_turn(candidates, group, self.around))

    def try_all(self, candidates: Iterator[Mutation]) -> None:
        """Keep those of the candidates that work; the sketches of the others are taken away."""
        candidates = iter(candidates)
        while work() <= self.until:
            with self.around.sketches.kept_only_if() as kept:
                try:
                    mutation = next(candidates, None)
                except FAILURES:
                    return
                if mutation is None or work() > self.until:
                    return
                if self.works(mutation):
                    self._name_by_reach(mutation)
                    resized = self.resized
                    then = self.outcome(mutation.changes, resized) if resized is not None else None
                    general = resized is None or same(then, resized.goal) or self._is_by_name(mutation)
                    (self.found if general else self.only_here).append(mutation)
                    if not general and resized is not None and getattr(then, "shape", None) == resized.goal.shape:
                        mutation.strange += _ONLY_HERE  # where the line itself holds for other sizes
                    kept += [by for _, by in mutation.changes]

    def _is_by_name(self, mutation: Mutation) -> bool:
        """Whether it stands by names in the forward pass, `/ d**0.5`, where other sizes have no other number."""
        numbers = (a for _, by in mutation.changes for a in by.args if isinstance(a, Named))
        return any(n is text for n in numbers for text in self.scales.expressions)

    def _name_by_reach(self, mutation: Mutation) -> None:
        """A wrong number is the scale of the gradient, or of one term of it; what is missing is a term of a sum."""
        value = self.trials[0].values.get(mutation.at)
        floats = isinstance(value, torch.Tensor) and value.dtype.is_floating_point and mutation.at in self.position
        if mutation.repairs not in _OF_TERMS or not floats or len(mutation.changes) > 1:
            return
        if self._is_in_factor(mutation) or not self._enters_linearly(mutation.at):
            mutation.repairs = mutation.makes = "sign" if mutation.repairs == "sign" else "wrong-factor"
        elif mutation.repairs in ("wrong-scale", "sign") and not ratios.is_whole(self, [mutation.at]):
            mutation.repairs = mutation.makes = "wrong-term-scale"

    def _is_in_factor(self, mutation: Mutation) -> bool:
        """Whether what is missing is a term of a factor, `1 - t` for `1 - t * t`: of no gradient."""
        carries, operation = self.around.carries, mutation.at.meta["operation"]
        if mutation.repairs != "missing-term" or carries.isdisjoint(self.nodes):
            return False
        operand = operation in ("mul", "div") and mutation.by.meta["operation"] == operation
        return operand or mutation.at not in carries

    def _enters_linearly(self, node: fx.Node) -> bool:
        """Whether the root is a linear function of a value, and something that does not depend on it."""
        trial = self.trials[0]
        value = trial.values[node]
        outcomes = [self.outcome([(node, number * value)], trial) for number in (0.0, 0.5, 2.0)]
        if not all(isinstance(o, torch.Tensor) for o in outcomes):
            return True
        none, half, twice = outcomes
        return same((half - none) * 4, twice - none)

    def works(self, mutation: Mutation) -> bool:
        if not all(same(self.outcome(mutation.changes, t), t.goal) for t in self.trials):
            return False
        return not self._says_nothing(mutation)

    def _says_nothing(self, mutation: Mutation) -> bool:
        """Whether it is a mask that lets everything pass, or a zero, which some longer way comes to as well; or another
        value in a term that then comes to nothing."""
        trial = self.trials[0]
        if all(_is_nothing(trial.values.get(at), by, mutation.repairs) for at, by in mutation.changes):
            return True
        values = [(at, trial.values.get(at)) for at, _ in mutation.changes]
        masks = [(at, v) for at, v in values if isinstance(v, torch.Tensor) and v.dtype is torch.bool]
        if mutation.repairs == "wrong-mask" and len(masks) == len(values):
            plain = (self.outcome([(at, torch.full_like(v, fill)) for at, v in masks], trial) for fill in (True, False))
            return any(same(p, trial.goal) for p in plain)
        if mutation.repairs != "wrong-tensor" or not all(isinstance(v, torch.Tensor) for _, v in values):
            return False
        zero = self.outcome([(at, torch.zeros_like(v)) for at, v in values if v is not None], trial)
        return bool(trial.goal.any()) and same(zero, trial.goal)

    def outcome(self, changes: Iterable[tuple[fx.Node, Any]], trial: Trial, to: fx.Node | None = None) -> Any:
        """The root (or `to`) where each node that is changed has another value: a tensor, or that of a node.

        None where the shapes do not fit.
        """
        to = to or self.root
        values, pending, moved = dict(trial.values), dict(changes), set()
        try:
            for at in [n for n in pending if n not in self.position]:
                values[at] = _value(pending[at], values)
                moved.add(at)
            first = 0 if moved else min(self.position[at] for at in pending)
            for node in self.order[first : self.position.get(to, -1) + 1]:
                if node in pending:
                    if any(r in moved for r in node.all_input_nodes):  # in an earlier turn of a loop
                        values[node] = step(node, values, double)
                    value = _value(pending[node], values)
                    if self.shaped and not _fits(value, values.get(node)) and not _reduces(pending[node]):
                        return None  # what follows was made for this shape
                    values[node] = value
                    moved.add(node)
                elif any(r in moved for r in node.all_input_nodes):
                    values[node] = step(node, values, double)
                    moved.add(node)
        except FAILURES:
            return None
        return values.get(to)


def _is_nothing(before: Any, by: fx.Node, repairs: str) -> bool:
    """Whether what is put in the place of a value is a mask that lets all pass, or nothing beside it."""
    value = by.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.numel() < 2 or by.meta["phase"] != "sketch":
        return False
    if repairs == "wrong-mask" and (bool((value == 1).all()) or not bool(value.any())):
        return True
    if not value.dtype.is_floating_point:
        return False
    plain = not isinstance(before, torch.Tensor) or not before.numel() or before.dtype is torch.bool
    size = 1.0 if plain else float(before.abs().max())
    nothing = float(value.abs().max()) <= 1e-10 * size
    return nothing and repairs in _BY_CHANCE


def _value(given: Any, values: Mapping[fx.Node, Any]) -> Any:
    return value_of(given, values) if isinstance(given, fx.Node) else given


def _reduces(by: Any) -> bool:
    return isinstance(by, fx.Node) and by.meta["operation"] in ("sum", "mean")


def _fits(value: Any, before: Any) -> bool:
    """Whether a value can stand where another stood: of its shape, turned, or summed with its axes kept."""
    if not isinstance(value, torch.Tensor) or not isinstance(before, torch.Tensor):
        return type(value) is type(before) or isinstance(value, int | float)
    if before.ndim == 0 or sorted(value.shape) == sorted(before.shape):
        return True
    return value.ndim == before.ndim and all(
        a in (b, 1) or b == 1 for a, b in zip(value.shape, before.shape, strict=True)
    )
