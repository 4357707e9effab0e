"""The search: which small change to a slice of the graph gives the numbers that are wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.case import same
from chainrule.diagnosis.mutations import REPLACED, WRAPPED, Around, Mutation, mutations
from chainrule.diagnosis.scales import Scales
from chainrule.diagnosis.sketch import is_size, is_tensor, value_of
from chainrule.run import double, step

_FAILURES = (RuntimeError, ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError, AttributeError)


@dataclass
class Trial:
    """One choice of the inputs: what is known, and what the slice should give."""

    values: dict[fx.Node, Any]
    goal: torch.Tensor


class Search:
    """Changes to the nodes of a slice that make its root what it should be, on every trial."""

    def __init__(
        self, nodes: list[fx.Node], root: fx.Node, trials: list[Trial], around: Around, factors: Iterable[fx.Node] = ()
    ) -> None:
        """`nodes` are those that may be changed, in order; every other value is in the trials."""
        self.nodes, self.root, self.trials, self.around = nodes, root, trials, around
        self.factors = list(dict.fromkeys([*factors, *around.reach]))
        self.after: dict[fx.Node, list[fx.Node]] = {}
        for node in nodes:
            moved = {node}
            self.after[node] = [n for n in nodes if any(r in moved for r in n.all_input_nodes) and not moved.add(n)]  # type: ignore[func-returns-value]
        self.scales = Scales(around.sketches, list(around.reach))
        self.found: list[Mutation] = []

    def run(self, wraps: bool) -> list[Mutation]:
        """Every change that works, nearest first; with `wraps`, also what can be put around a value."""
        with torch.no_grad():
            for node in reversed(self.nodes):
                self._all(mutations(node, self.around))
                self._all(self._scaled(node))
            if wraps:
                self._all(self._reshaped())
                if not any(m.weight < WRAPPED + 1 for m in self.found):
                    for node in reversed(self.nodes or [self.root]):
                        self._all(self._factors(node))
        return sorted(self.found, key=lambda m: m.weight)

    def _all(self, candidates: Iterator[Mutation]) -> None:
        candidates = iter(candidates)
        while True:
            with self.around.sketches.kept_only_if() as kept:
                mutation = self._next(candidates)
                if mutation is None:
                    return
                if self.works(mutation) and not self._is_idle(mutation):
                    self.found.append(mutation)
                    kept += [mutation.by]

    @staticmethod
    def _next(candidates: Iterator[Mutation]) -> Mutation | None:
        try:
            return next(candidates, None)
        except _FAILURES:
            return None

    def works(self, mutation: Mutation) -> bool:
        return all(same(self.outcome(mutation.at, mutation.by, t), t.goal) for t in self.trials)

    def _is_idle(self, mutation: Mutation) -> bool:
        """Whether a changed mask lets everything pass: that is no mask."""
        value = mutation.by.meta.get("val")
        return isinstance(value, torch.Tensor) and value.dtype is torch.bool and value.numel() > 1 and bool(value.all())

    def outcome(self, at: fx.Node, by: fx.Node, trial: Trial) -> Any:
        try:
            value = value_of(by, trial.values)
        except _FAILURES:
            return None
        return self.with_value(at, value, trial)

    def with_value(self, at: fx.Node, value: Any, trial: Trial) -> Any:
        """The root where `at` has another value; None where the shapes do not fit."""
        values = dict(trial.values)
        values[at] = value
        try:
            for node in self.after.get(at, ()):
                values[node] = step(node, values, double)
        except _FAILURES:
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
        whole = self._is_whole(node)
        repairs = ("sign" if ratio == -1 else "wrong-scale") if whole else "wrong-term-scale"
        makes = repairs
        if not whole and ratio == 0:
            repairs, makes = "double-counted-path", self._lost(node)
        elif not whole and ratio == 2:
            makes = "double-counted-path"
        sketches = self.around.sketches
        if ratio == -1:
            yield Mutation(node, sketches.operation("neg", node), repairs, WRAPPED + 0.4, makes)
        for place, literal in enumerate(node.args):
            yield from self._other_number(node, place, literal, ratio, repairs, makes)
        if ratio == 0 and node is not self.root:
            yield Mutation(node, sketches.operation("mul", 0, node), repairs, WRAPPED + 1, makes)
        for far, scaled in enumerate(self.scales.scaled(node, ratio, self.trials[0].values)):
            yield Mutation(node, scaled, repairs, WRAPPED + 0.5 + 0.01 * far, makes)

    def _lost(self, node: fx.Node) -> str:
        """What the loss of `node` from the sum is: a path, or a term of one derivative."""
        readers = [u for u in node.users if u in self.after]
        return "lost-path" if any(u.meta.get("accumulated") for u in readers) else "missing-term"

    def _is_whole(self, node: fx.Node) -> bool:
        """Whether the root is proportional to the value of `node`."""
        trial = self.trials[0]
        zero = self.with_value(node, torch.zeros_like(trial.values[node]), trial)
        return isinstance(zero, torch.Tensor) and not bool(zero.any())

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

    def _factors(self, node: fx.Node) -> Iterator[Mutation]:
        """A factor that was forgotten, or one too many."""
        value = self.trials[0].values.get(node)
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            return
        sketches = self.around.sketches
        for factor in self.factors:
            known = self.trials[0].values.get(factor)
            if not isinstance(known, torch.Tensor) or known.numel() < 2 or factor is node:
                continue
            far = WRAPPED + (1.0 if node is self.root else 1.2) + (0.2 if factor in self.around.reach else 0)
            yield Mutation(node, sketches.operation("mul", node, factor), "missing-factor", far, "double-applied")
            yield Mutation(node, sketches.operation("div", node, factor), "wrong-factor", far + 0.1, "wrong-factor")
