"""One element of one value moved: how everything after it changed, beside what the gradient had predicted."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.pullback import depends, located, pullback
from chainrule.rules import BOOK
from chainrule.run import double, needed, run
from chainrule.show import table
from chainrule.show.names import name_of

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

OFF = 0.01  # of the actual change: a prediction that is off by more is explained
_HEAD = ["value", "shape", "moved", "largest change", "norm of the change"]
_NOISE = 1e3 * torch.finfo(torch.float64).eps  # of the loss: below, a change is rounding


@dataclass(frozen=True)
class Change:
    """How one value changed; `largest` is the change of the element that changed most, at `at`."""

    name: str
    shape: tuple[int, ...]
    moved: int  # elements that are not what they were
    largest: float
    at: tuple[int, ...]
    norm: float
    difference: torch.Tensor

    def row(self) -> list[str]:
        """The cells of its line in the table."""
        most = f"{self.largest:{'' if math.isnan(self.largest) else '+'}.4g}"
        most = most + (f" at {list(self.at)}" if self.at else "") if self.moved else "0"
        return [self.name, str(self.shape), f"{self.moved:,} of {self.difference.numel():,}", most, f"{self.norm:.4g}"]


@dataclass(frozen=True)
class Nudge:
    """What `d.nudge` found; `str()` is a table. Computed in float64."""

    name: str
    at: tuple[int, ...]
    by: float
    changes: list[Change]  # the value itself, then what follows it, in the order of the program
    unchanged: list[str]  # named values that were computed again and are what they were
    output: str  # what the gradient is of: "loss", or "sum(out * out_g)"
    slope: float  # the gradient at the element
    predicted: float  # slope * by
    actual: float
    notes: list[str]

    @property
    def ratio(self) -> float:
        """actual / predicted; 1 where both are 0."""
        if self.predicted == 0:
            return 1.0 if self.actual == 0 else math.inf
        return self.actual / self.predicted

    @property
    def _said(self) -> str:
        """The ratio in words, where it says something."""
        compares = self.actual and self.predicted and math.isfinite(self.actual) and math.isfinite(self.predicted)
        return f"ratio {self.ratio:.6g}" if compares else ""

    def __getitem__(self, name: str) -> Change:
        for change in self.changes:
            if change.name == name:
                return change
        raise ChainruleError(f"{name!r} is not among what moved: {', '.join(c.name for c in self.changes)}")

    @property
    def title(self) -> str:
        return f"{table.entry(self.name, self.at)} moved by {self.by:g}"

    def verdict(self) -> list[str]:
        """The lines below the table."""
        element = table.entry(f"{self.name}.g", self.at)
        ratio = f" ({self._said})" if self._said else ""
        lines = [
            f"{self.output} changed by {self.actual:.6g}; {element} * {self.by:g} = {self.slope:.6g} * {self.by:g} "
            f"= {self.predicted:.6g} was predicted{ratio}"
        ]
        if self.unchanged:
            lines.append(f"unchanged: {', '.join(self.unchanged)}")
        return lines + [f"note: {note}" for note in self.notes]

    def __str__(self) -> str:
        rows = [_HEAD, *(change.row() for change in self.changes)]
        return "\n".join([self.title, table.text(rows, indent="  "), *self.verdict()])

    def __repr__(self) -> str:
        predicted = self._said or f"{self.predicted:.6g} was predicted"
        return f"<Nudge: {self.title}; {self.output} changed by {self.actual:.6g}, {predicted}>"

    def _repr_html_(self) -> str:
        below = table.html([], [[line] for line in self.verdict()])
        return (
            f"<div><p>{table.escape(self.title)}</p>{table.html(_HEAD, [c.row() for c in self.changes])}{below}</div>"
        )


def nudge(d: Derivation, name: str, at: Any, by: float) -> Nudge:
    """Run the forward pass of `d` again with one element moved; see `Derivation.nudge`."""
    node = located(d, name, "a nudge")
    index = _index(name, node.meta["val"], at)
    if not isinstance(by, int | float) or isinstance(by, bool) or by == 0 or not math.isfinite(by):
        raise ChainruleError(f"a nudge moves {table.entry(name, index)} by a number other than 0, not by {by!r}")
    moves = _Moves(d, node, index)
    before, after = moves.run(0.0), moves.run(by)
    names = {n.meta["base"]: name for n, name in d._names.items()}
    names.setdefault(d._base.output, moves.output_name)
    changes, unchanged = [], []
    for value in d._base.graph.nodes:
        if value in names and value in moves.after and isinstance(value.meta["val"], torch.Tensor):
            change = _change(names[value], before[value], after[value], value.meta.get("site"))
            if change.moved or value is d._base.output:
                changes.append(change)
            elif value is not node:
                unchanged.append(change.name)
    slope, actual = moves.slope(), moves.total(after) - moves.total(before)
    slope, actual, predicted = (number + 0.0 for number in (slope, actual, slope * by))  # no -0
    notes = [
        f"the forward pass would take another branch at {guard.site}; shown is the one that was recorded"
        for guard in d._base.guards
        if not bool(after[guard.node])
    ]
    notes += _notes(moves, before, after, by, predicted, actual)
    return Nudge(name, index, float(by), changes, unchanged, moves.of, slope, predicted, actual, notes)


class _Moves:
    """The program from one value on, run with one element of that value moved."""

    def __init__(self, d: Derivation, node: fx.Node, index: tuple[int, ...]) -> None:
        self.d, self.node, self.index = d, node, index
        graph, self.output = d._base.graph, d._base.output
        self.after = _after(node)
        forward = [n for n in graph.nodes if n.meta["phase"] == "forward"]
        slopes = needed(list(d._base.gradients.values())) if d._base.gradients else []
        wanted = {*slopes, *(n for n in forward if n in self.after), self.output, *(g.node for g in d._base.guards)}
        self.todo = needed(wanted)
        self.output_name = d.layout.variables[d.program.output]
        upstream = d.program.upstream
        self.of = self.output_name if upstream is None else f"sum({self.output_name} * {d.layout.variables[upstream]})"
        self.upstream = torch.ones_like(d.output) if upstream is None else upstream.meta["val"]

    def run(self, by: float) -> dict[fx.Node, Any]:
        known = {n: double(n.meta["val"]) for n in self.todo if n.op == "placeholder"}
        with torch.no_grad():
            if self.node not in known:
                known = run(needed([self.node]), known, double)
            moved = known[self.node].detach().clone()
            moved[self.index] += by
            return run(self.todo, {**known, self.node: moved}, double)

    def total(self, values: dict[fx.Node, Any]) -> float:
        """What the gradients are of: the loss, or the sum of the output times its upstream."""
        return float((values[self.output] * double(self.upstream).conj()).real.sum())

    def slope(self) -> float:
        """The gradient at the element; of a value that the derivation has none for, computed now."""
        if not depends(self.output, self.node):
            return 0.0
        own = next((n for n in self.d.program.graph.nodes if n.meta.get("base") is self.node), None)
        gradient = self.d._gradient(own) if own is not None else None
        if gradient is None:
            with pullback(self.d, self.output, self.node) as pull:
                gradient = pull(self.upstream)
        return float(gradient[self.index])

    def jumps(self, before: dict[fx.Node, Any], after: dict[fx.Node, Any]) -> list[str]:
        """Values without slope (masks, indices, signs) that are no longer what they were, forward or backward: the
        function has another slope there. Each as the operation with the place."""
        found: dict[str, int] = {}
        owners: dict[fx.Node, list[fx.Node]] = {}
        for value, gradient in self.d._base.gradients.items():
            owners.setdefault(gradient, []).append(value)
        for node, count in self._moved(before, after):
            flat = node.meta["operation"] in BOOK.constants and not node.meta.get("constant")
            if flat or not before[node].dtype.is_floating_point:
                at = node.meta.get("site") or _site_ahead(node, owners)
                what = node.meta.get("rule") or name_of(node)
                said = f"{what} ({at})" if at is not None else what
                found[said] = max(found.get(said, 0), count)
        return [f"{count} element{'s' * (count != 1)} of {said}" for said, count in found.items()]

    def cuts(self, before: dict[fx.Node, Any], after: dict[fx.Node, Any]) -> list[str]:
        """Where the change went on and no gradient comes back: detach, torch.no_grad."""
        used = set(needed([self.output]))
        moved = [n for n, _ in self._moved(before, after) if n in used and n.meta.get("constant")]
        first = [n for n in moved if not any(r in moved for r in n.all_input_nodes)]
        return [f"{name_of(n)} ({n.meta['site']})" if n.meta.get("site") else name_of(n) for n in first]

    def _moved(self, before: dict[fx.Node, Any], after: dict[fx.Node, Any]) -> list[tuple[fx.Node, int]]:
        """The tensors, real ones, that are not what they were, and in how many elements."""
        found = []
        for node in self.todo:
            old, new = before[node], after[node]
            if isinstance(old, torch.Tensor) and old.shape == new.shape and not old.dtype.is_complex:
                count = int((old != new).sum())
                if count:
                    found.append((node, count))
        return found


def _site_ahead(node: fx.Node, owners: dict[fx.Node, list[fx.Node]]) -> Any:
    """The person's line whose backward step made `node`: it reads the value whose gradient `node` becomes a part of."""
    later: fx.Node | None = node
    while later is not None and later not in owners:
        later = next(iter(later.users), None)
    readers = [reader for value in owners.get(later, ()) for reader in value.users] if later is not None else []
    return next((r.meta["site"] for r in readers if r.meta["operation"] == node.meta.get("rule")), None)


def _notes(
    moves: _Moves, before: dict[fx.Node, Any], after: dict[fx.Node, Any], by: float, predicted: float, actual: float
) -> list[str]:
    """Why the prediction is off, where it is."""
    for value, when in ((moves.total(before), "before"), (moves.total(after), "after")):
        if not math.isfinite(value):
            return [f"{moves.of} is {value:g} {when} the step, so that there is no change to compare"]
    if not math.isfinite(predicted):
        return [f"the gradient is {predicted / by:g} here: there is no finite slope to predict with"]
    size = max(abs(predicted), abs(actual))
    if abs(actual - predicted) <= OFF * size:
        return []
    gradient = moves.d._base.gradients.get(moves.node)
    exact = float(before[gradient][moves.index]) * by if gradient is not None else predicted
    noise = _NOISE * abs(moves.total(before))
    explained = abs(actual - exact) <= max(OFF * max(abs(actual), abs(exact)), noise)
    if explained and abs(exact - predicted) > OFF * size:
        kind = str(moves.node.meta["val"].dtype).removeprefix("torch.")
        return [f"the gradient is rounded, in {kind}; in float64 it is {exact / by:.6g}, which predicts {exact:.6g}"]
    if size <= noise:
        return [f"a change this small is lost in rounding, even in float64; move by more than {by:g}"]
    if cuts := moves.cuts(before, after):
        return [f"the change goes on through {', '.join(cuts)}, where no gradient passes"]
    if jumps := moves.jumps(before, after):
        listed = ", ".join(jumps[:3]) + (f" and {len(jumps) - 3} more" if len(jumps) > 3 else "")
        return [f"the step crossed a kink, after which the slope is another: {listed}"]
    if exact == 0:
        return [f"the slope here is 0, and {moves.of} bends: its change is of second order"]
    smaller = (moves.total(moves.run(by / 10)) - moves.total(before)) / (exact / 10)
    if abs(smaller - 1) < 0.5 * abs(actual / exact - 1):
        return [f"{moves.of} bends over this step; for a tenth of it, {by / 10:g}, the ratio is {smaller:.6g}"]
    return [
        f"for a tenth of the step the ratio is {smaller:.6g} as well: the backward pass is not the slope of the forward "
        "pass here (a function with a backward step of its own, or a gradient that is rounded)"
    ]


def _after(node: fx.Node) -> set[fx.Node]:
    """`node` and all forward values that are computed from it, differentiably or not."""
    found = {node}
    for later in node.graph.nodes:
        if later.meta["phase"] == "forward" and any(n in found for n in later.all_input_nodes):
            found.add(later)
    return found


def _change(name: str, before: torch.Tensor, after: torch.Tensor, site: Any) -> Change:
    if before.shape != after.shape:
        raise ChainruleError(
            f"the step changes the shape of {name} from {tuple(before.shape)} to {tuple(after.shape)}, as a mask picks "
            "other elements, so that the two runs cannot be compared; move by less",
            site,
        )
    if before.dtype == torch.bool:
        before, after = before.double(), after.double()
    difference = torch.where(before == after, torch.zeros_like(before), after - before)  # infinities that stay
    size = difference.abs()
    largest = int(size.argmax()) if size.numel() else 0
    at = tuple(int(i) for i in torch.unravel_index(torch.tensor(largest), before.shape)) if size.numel() else ()
    most = difference.flatten()[largest] if size.numel() else torch.zeros(())
    signed = float(most.abs() if most.dtype.is_complex else most)
    moved, norm = int((difference != 0).sum()), float(torch.linalg.vector_norm(size.double()))
    return Change(name, tuple(before.shape), moved, signed, at, norm, difference)


def _index(name: str, value: torch.Tensor, at: Any) -> tuple[int, ...]:
    """The element's index, counted from the front; raises for one that does not point to a single element."""
    said = f"{name} has shape {tuple(value.shape)}"
    try:
        given = [operator.index(i) for i in (at if isinstance(at, Sequence) else (at,))]
    except TypeError:
        raise ChainruleError(f"{said}; a nudge takes one integer for each of its dimensions, not {at!r}") from None
    if len(given) != value.ndim:
        example = tuple(0 for _ in value.shape)
        raise ChainruleError(f"{said}, so one element needs {value.ndim} indices, such as {example}, not {at!r}")
    if any(not -n <= i < n for i, n in zip(given, value.shape, strict=True)):
        raise ChainruleError(f"{said}, in which there is no element {list(given)}; indices count from 0")
    return tuple(i % n for i, n in zip(given, value.shape, strict=True))
