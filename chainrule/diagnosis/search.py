"""The search: which small change to a slice of the graph gives the numbers that are wanted."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.case import same
from chainrule.diagnosis.mutations import REPLACED, WRAPPED, Around, Mutation, exchanged, mutations
from chainrule.diagnosis.scales import Scales
from chainrule.diagnosis.sketch import is_size, is_tensor, value_of
from chainrule.run import double, step

FAILURES = (RuntimeError, ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError, AttributeError)

_SECONDS = 2.0  # after which a search ends with what it has
_SCALES = 4  # ways of writing one ratio that are tried


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
    ) -> None:
        """`nodes` are those that may be changed, in order; every other value is in the trials. What fails for other
        sizes, as `resized` has them, counts only if nothing else is found."""
        self.resized = resized
        self.nodes, self.root, self.trials, self.around = nodes, root, trials, around
        self.factors = list(dict.fromkeys([*factors, *around.reach]))
        self.position = {node: i for i, node in enumerate(nodes)}
        self.scales = Scales(around.sketches, list(around.reach), around.numbers)
        self.found: list[Mutation] = []
        self.only_here: list[Mutation] = []  # what works for these sizes alone
        self.shaped = bool(trials) and getattr(trials[0].values.get(root), "shape", None) == trials[0].goal.shape
        self.until = min(time.monotonic() + _SECONDS, around.until)

    def run(self, wraps: bool) -> list[Mutation]:
        """Every change that works, nearest first; with `wraps`, also what can be put around a value."""
        with torch.no_grad():
            for group in self._groups():
                self.try_all(_together(group, self.around))
                self.try_all(self._scaled(group[-1]) if len(group) == 1 else self._scaled_together(group))
            if wraps:
                self.try_all(self._reshaped())
                if not any(m.weight < WRAPPED for m in self.found):
                    self.try_all(exchanged(self.nodes, self.around))
                if not any(m.weight < WRAPPED + 1 for m in self.found):
                    for group in self._groups() or [[self.root]]:
                        self.try_all(self._factors(group))
                        self.try_all(self._sums(group[-1]) if len(group) == 1 else iter(()))
                if not self.found:
                    for group in self._groups():
                        self.try_all(self._terms(group))
                        self.try_all(self._activated(group[-1]) if len(group) == 1 else iter(()))
        return sorted(self.found or self.only_here, key=lambda m: m.weight)

    def _groups(self) -> list[list[fx.Node]]:
        """The nodes that one piece of source gave: several where it stands in a loop. The last first."""
        found: dict[Any, list[fx.Node]] = {}
        for node in self.nodes:
            spot = node.meta.get("spot")
            found.setdefault((spot.code, spot.index, node.target) if spot is not None else node, []).append(node)
        return list(found.values())[::-1]

    def try_all(self, candidates: Iterator[Mutation]) -> None:
        """Keep those of the candidates that work; the sketches of the others are taken away."""
        candidates = iter(candidates)
        while True:
            with self.around.sketches.kept_only_if() as kept:
                try:
                    mutation = next(candidates, None)
                except FAILURES:
                    return
                if mutation is None or time.monotonic() > self.until:
                    return
                if self.works(mutation):
                    self._name_by_reach(mutation)
                    resized = self.resized
                    general = resized is None or same(self.outcome(mutation.changes, resized), resized.goal)
                    (self.found if general else self.only_here).append(mutation)
                    kept += [by for _, by in mutation.changes]

    def _name_by_reach(self, mutation: Mutation) -> None:
        """A wrong number is the scale of the gradient, or of one term of it."""
        value = self.trials[0].values.get(mutation.at)
        floats = isinstance(value, torch.Tensor) and value.dtype.is_floating_point and mutation.at in self.position
        if mutation.repairs not in ("wrong-scale", "sign") or not floats or len(mutation.changes) > 1:
            return
        if not (self._is_whole(mutation.at) or self._is_whole_line(mutation.at)):
            mutation.repairs = mutation.makes = "wrong-term-scale"

    def works(self, mutation: Mutation) -> bool:
        if not all(same(self.outcome(mutation.changes, t), t.goal) for t in self.trials):
            return False
        return not self._says_nothing(mutation)

    @staticmethod
    def _says_nothing(mutation: Mutation) -> bool:
        """Whether it is a mask that lets everything pass, or a zero, which some longer way comes to as well."""
        value = mutation.by.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.numel() < 2 or mutation.by.meta["phase"] != "sketch":
            return False
        if mutation.repairs == "wrong-mask" and (bool((value == 1).all()) or not bool(value.any())):
            return True
        before = mutation.at.meta.get("val")
        if not value.dtype.is_floating_point:
            return False
        plain = not isinstance(before, torch.Tensor) or not before.numel() or before.dtype is torch.bool
        size = 1.0 if plain else float(before.abs().max())  # type: ignore[union-attr]
        nothing = float(value.abs().max()) <= 1e-10 * size
        return (
            mutation.repairs in ("wrong-tensor", "wrong-factor", "wrong-mask", "wrong-term-scale", "transposed")
            and nothing
        )

    def outcome(self, changes: list[tuple[fx.Node, fx.Node]], trial: Trial) -> Any:
        """The root where each `at` has the value of its `by`; None where the shapes do not fit."""
        values = dict(trial.values)
        pending = dict(changes)
        first = min(self.position.get(at, 0) for at in pending)
        moved: set[fx.Node] = set()
        try:
            for node in self.nodes[first:]:
                if node in pending:
                    value = value_of(pending[node], values)
                    if self.shaped and not _fits(value, values.get(node)):
                        return None  # what follows was made for this shape
                    values[node] = value
                    moved.add(node)
                elif any(r in moved for r in node.all_input_nodes):
                    values[node] = step(node, values, double)
                    moved.add(node)
            if self.root in pending and self.root not in self.position:
                values[self.root] = value_of(pending[self.root], values)
        except FAILURES:
            return None
        return values.get(self.root)

    def with_value(self, at: fx.Node, value: Any, trial: Trial) -> Any:
        """The root where `at`, which need not be one of the nodes, has another value."""
        values = dict(trial.values)
        values[at] = value
        moved = {at}
        try:
            for node in self.nodes[self.position.get(at, -1) + 1 :]:
                if any(r in moved for r in node.all_input_nodes):
                    values[node] = step(node, values, double)
                    moved.add(node)
        except FAILURES:
            return None
        return values.get(self.root)

    # -- scales ----------------------------------------------------------------------------------

    def ratio(self, node: fx.Node, trial: Trial) -> float | None:
        """The number by which the value of `node` must be multiplied for the root to be right."""
        value = trial.values.get(node)
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            return None
        without = self.with_value(node, torch.zeros_like(value), trial)
        now = trial.values.get(self.root)
        if (
            not isinstance(without, torch.Tensor)
            or not isinstance(now, torch.Tensor)
            or without.shape != trial.goal.shape
        ):
            return None
        part = now - without
        length = float((part * part).sum())
        if now.shape != trial.goal.shape or not length or not math.isfinite(length):
            return None
        number = float(((trial.goal - without) * part).sum()) / length
        number = round(number, 12) if abs(number) > 1e-9 else 0.0
        return number if same(self.with_value(node, value * number, trial), trial.goal) else None

    def _scaled(self, node: fx.Node) -> Iterator[Mutation]:
        if node.meta["phase"] != "forward" and node.meta.get("operation") == "ones_like":
            return
        ratio = self.ratio(node, self.trials[0])
        if ratio is None or abs(ratio - 1) < 1e-9:
            return
        ratio = -1.0 if abs(ratio + 1) < 1e-9 else ratio
        whole = self._is_whole(node) or self._is_whole_line(node)
        repairs = ("sign" if ratio == -1 else "wrong-scale") if whole else "wrong-term-scale"
        makes = repairs
        feeds = [u for u in node.users if u in self.position]
        adds = bool(feeds) and node in self.around.carries and all(u.meta["operation"] == "add" for u in feeds)
        if not whole and abs(ratio - 0.5) < 1e-9 and adds:
            repairs = "double-counted-path"
        if not whole and ratio == 0:
            repairs, makes = "double-counted-path", self._lost(node)
        elif not whole and ratio == 2 and any(u.meta.get("accumulated") for u in node.users):
            makes = "double-counted-path"
        sketches = self.around.sketches
        if ratio == -1:
            yield Mutation(node, sketches.operation("neg", node), repairs, WRAPPED + 0.4, makes)
        for place, literal in enumerate(node.args):
            yield from self._other_number(node, place, literal, ratio, repairs, makes)
        if ratio == 0 and node is not self.root:
            yield Mutation(node, sketches.operation("mul", 0, node), repairs, WRAPPED + 1, makes)
        for far, scaled in enumerate(islice(self.scales.scaled(node, ratio, self.trials[0].values), _SCALES)):
            yield Mutation(node, scaled, repairs, WRAPPED + 0.5 + 0.01 * far, makes)

    def _lost(self, node: fx.Node) -> str:
        """What the loss of `node` from the sum is: a path, or a term of one derivative."""
        readers = [u for u in node.users if u in self.position]
        return (
            "lost-path"
            if any(u.meta.get("accumulated") or "norm" in u.meta.get("rule", "") for u in readers)
            else "missing-term"
        )

    def _is_whole(self, node: fx.Node) -> bool:
        """Whether the root is proportional to the value of `node`."""
        trial = self.trials[0]
        zero = self.with_value(node, torch.zeros_like(trial.values[node]), trial)
        return isinstance(zero, torch.Tensor) and not bool(zero.any())

    def _is_whole_line(self, node: fx.Node) -> bool:
        """Whether what the person's line gives is proportional to the value of `node`."""
        spot = node.meta.get("spot")
        line = [
            n
            for n in self.nodes
            if spot is not None and (s := n.meta.get("spot")) and (s.code, s.line) == (spot.code, spot.line)
        ]
        if not line or self.root in line:
            return False
        trial = self.trials[0]
        values = {**trial.values, node: torch.zeros_like(trial.values[node])}
        moved = {node}
        try:
            for later in self.nodes[self.position[node] + 1 : self.position[line[-1]] + 1]:
                if any(r in moved for r in later.all_input_nodes):
                    values[later] = step(later, values, double)
                    moved.add(later)
        except FAILURES:
            return False
        return line[-1] in moved and not bool(values[line[-1]].any())

    def _other_number(
        self, node: fx.Node, place: int, literal: Any, ratio: float, repairs: str, makes: str
    ) -> Iterator[Mutation]:
        """Another number in a product: `2 * diff`, `/ n`."""
        if node.meta["operation"] not in ("mul", "div") or is_tensor(literal) or not ratio:
            return
        values = self.trials[0].values
        number = literal if not isinstance(literal, fx.Node) else value_of(literal, values)
        if not isinstance(number, int | float) or isinstance(number, bool):
            return
        wanted = number / ratio if node.meta["operation"] == "div" and place == 1 else number * ratio
        for far, other in enumerate(self.scales.numbers(wanted, values, literal if is_size(literal) else None)):
            if other == 1 and len(node.args) == 2 and is_tensor(node.args[1 - place]):
                yield Mutation(node, node.args[1 - place], repairs, REPLACED + 0.1, makes)  # type: ignore[arg-type]
                continue
            args = (*node.args[:place], other, *node.args[place + 1 :])
            yield Mutation(node, self.around.sketches.like(node, args), repairs, REPLACED + 0.2 + 0.01 * far, makes)

    # -- what is put around a value --------------------------------------------------------------

    def _reshaped(self) -> Iterator[Mutation]:
        """The root summed, transposed or put into the shape that it should have."""
        sketches, root, trial = self.around.sketches, self.root, self.trials[0]
        value, goal = trial.values.get(root), trial.goal
        if not isinstance(value, torch.Tensor):
            return
        for size in range(1, value.ndim + 1):
            for dims in combinations(range(value.ndim), size):
                which: Any = dims[0] if size == 1 else dims
                kept = value.sum(dims, keepdim=True).shape == goal.shape
                if kept or value.sum(dims).shape == goal.shape:
                    by = sketches.method("sum", root, which, **({"keepdim": True} if kept else {}))
                    yield Mutation(root, by, "missing-broadcast-sum", WRAPPED)
        if value.numel() == goal.numel() and value.shape != goal.shape:
            for axis in range(value.ndim):
                if value.shape[axis] == 1:
                    yield Mutation(root, sketches.method("squeeze", root, axis), "wrong-shape", WRAPPED)
            for axis in range(goal.ndim):
                yield Mutation(root, sketches.method("unsqueeze", root, axis), "wrong-shape", WRAPPED)
            sizes = [n for n in self.around.reach if n.meta["val"].shape == goal.shape]
            for like in sizes[:2]:
                yield Mutation(
                    root,
                    sketches.method("reshape", root, sketches.attribute(like, "shape")),
                    "wrong-shape",
                    WRAPPED + 0.2,
                )
        if value.ndim == 2 and tuple(value.shape[::-1]) == tuple(goal.shape):
            yield Mutation(root, sketches.transposed(root), "transposed", WRAPPED)

    def _places(self, group: list[fx.Node]) -> Iterator[tuple[fx.Node, Callable[[fx.Node], tuple[fx.Node, fx.Node]]]]:
        """Where something can be put around a value: what an operation gives, and each known value that it reads."""
        node = group[-1]
        if len(group) > 1:
            return
        yield node, lambda by: (node, by)
        for place, value in enumerate(node.args):
            if is_tensor(value) and value not in self.position:
                yield value, functools.partial(self._read_as, node, place)  # type: ignore[misc]

    def _read_as(self, node: fx.Node, place: int, by: fx.Node) -> tuple[fx.Node, fx.Node]:
        return node, self.around.sketches.like(node, (*node.args[:place], by, *node.args[place + 1 :]))

    def _factors(self, group: list[fx.Node]) -> Iterator[Mutation]:
        """A factor that was forgotten, or one too many."""
        sketches, values = self.around.sketches, self.trials[0].values
        for node, put in self._places(group):
            value = values.get(node)
            if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
                continue
            for given in self.factors:
                factor, known = given, values.get(given)
                lone = isinstance(known, torch.Tensor) and known.numel() < 2 and given not in self.around.reach
                if not isinstance(known, torch.Tensor) or lone or factor is node:
                    continue
                if known.ndim < value.ndim and known.shape == value.shape[: known.ndim] != value.shape[-known.ndim :]:
                    index = (*[slice(None)] * known.ndim, *[None] * (value.ndim - known.ndim))
                    factor = sketches.operation("getitem", factor, index)
                far = WRAPPED + (1.0 if node is self.root else 1.2) + (0.2 if given in self.around.reach else 0)
                product, quotient = sketches.operation("mul", node, factor), sketches.operation("div", node, factor)
                yield Mutation(*put(product), "missing-factor", far, "double-applied")
                yield Mutation(*put(quotient), "wrong-factor", far + 0.1, "wrong-factor")

    def _sums(self, node: fx.Node) -> Iterator[Mutation]:
        """A sum that is missing on the way: `(dp * p).sum(-1, keepdim=True)`."""
        value = self.trials[0].values.get(node)
        if isinstance(value, torch.Tensor) and value.dtype.is_floating_point and node is not self.root:
            for axis in range(value.ndim):
                by = self.around.sketches.method("sum", node, axis, keepdim=True)
                yield Mutation(node, by, "missing-broadcast-sum", WRAPPED + 0.8)

    def _activated(self, node: fx.Node) -> Iterator[Mutation]:
        """A value before its activation in the place of that after it."""
        value = self.trials[0].values.get(node)
        if isinstance(value, torch.Tensor) and value.dtype.is_floating_point:
            for name in ("sigmoid", "tanh", "exp", "relu", "log", "sign"):
                yield Mutation(node, self.around.sketches.method(name, node), "wrong-tensor", WRAPPED + 1.3)
            if value.ndim:
                yield Mutation(node, self.around.sketches.method("softmax", node, -1), "wrong-tensor", WRAPPED + 1.3)

    def _terms(self, group: list[fx.Node]) -> Iterator[Mutation]:
        """A value in reach that should be added or taken away: `p * (dp - inner)`."""
        values, sketches = self.trials[0].values, self.around.sketches
        for node, put in self._places(group):
            for other in self.around.reach:
                known = values.get(other)
                if (
                    isinstance(values.get(node), torch.Tensor)
                    and isinstance(known, torch.Tensor)
                    and known.dtype.is_floating_point
                ):
                    for operation in ("add", "sub"):
                        made = put(sketches.operation(operation, node, other))
                        yield Mutation(*made, "missing-term", WRAPPED + 1.5)

    def _scaled_together(self, group: list[fx.Node]) -> Iterator[Mutation]:
        """The value of one piece of source that stands in a loop, times a number in every turn."""
        value = self.trials[0].values.get(group[-1])
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            return
        sketches = self.around.sketches
        for number in (-1, 2, 0.5, 0):
            changes = [
                (n, sketches.operation("mul", number, n) if number != -1 else sketches.operation("neg", n))
                for n in group
            ]
            cause = "sign" if number == -1 else "double-counted-path" if number == 0 else "wrong-scale"
            at, by = changes[-1]
            yield Mutation(at, by, cause, WRAPPED + 0.6, "lost-path" if number == 0 else cause, changes)


def _together(group: list[fx.Node], around: Around) -> Iterator[Mutation]:
    """The mutations of one piece of source; where it stands in a loop, made in every turn."""
    if len(group) == 1:
        yield from mutations(group[0], around)
        return
    for several in zip(*(mutations(n, around) for n in group), strict=False):
        last = several[-1]
        if all(m.repairs == last.repairs and m.weight == last.weight for m in several):
            yield Mutation(last.at, last.by, last.repairs, last.weight, last.makes, [(m.at, m.by) for m in several])


def _fits(value: Any, before: Any) -> bool:
    """Whether a value can stand where another stood: of its shape, or summed with its axes kept."""
    if not isinstance(value, torch.Tensor) or not isinstance(before, torch.Tensor):
        return type(value) is type(before) or isinstance(value, int | float)
    return value.ndim == before.ndim and all(
        a in (b, 1) or b == 1 for a, b in zip(value.shape, before.shape, strict=True)
    )
