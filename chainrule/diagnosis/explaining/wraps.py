"""What can be put around a value: a sum, another shape, a factor, a term, an activation."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice, product
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.exchanges import is_mask
from chainrule.diagnosis.explaining.mutation import WRAPPED, Mutation
from chainrule.diagnosis.truth.case import same
from chainrule.diagnosis.truth.sketch import is_tensor

if TYPE_CHECKING:
    from chainrule.diagnosis.explaining.search import Search


def reshaped(search: Search) -> Iterator[Mutation]:
    """The root summed, transposed or put into the shape that it should have."""
    sketches, root, trial = search.around.sketches, search.root, search.trials[0]
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
        for text in [t for t, sizes in search.around.shapes.items() if sizes == tuple(goal.shape)][:1]:
            if search.around.value is not None:
                shape = sketches.attribute(search.around.value, "shape")
                shape.meta["text"] = text
                yield Mutation(root, sketches.method("reshape", root, shape), "wrong-shape", WRAPPED + 0.1)
        sizes = [n for n in search.around.reach if n.meta["val"].shape == goal.shape]
        for like in sizes[:2]:
            yield Mutation(
                root,
                sketches.method("reshape", root, sketches.attribute(like, "shape")),
                "wrong-shape",
                WRAPPED + 0.2,
            )
    if value.ndim == 2 and tuple(value.shape[::-1]) == tuple(goal.shape):
        yield Mutation(root, sketches.transposed(root), "transposed", WRAPPED)
    if value.ndim == goal.ndim and value.shape != goal.shape:
        for cut in _cuts(value.shape, goal.shape):
            yield Mutation(root, sketches.function(operator.getitem, root, cut), "wrong-shape", WRAPPED)


def _cuts(sizes: Sequence[int], goal: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Where a part of the right shape may stand in a larger tensor, the middle first: the padding is cut off."""
    more = [size - least for size, least in zip(sizes, goal, strict=True)]
    if min(more) < 0 or math.prod(m + 1 for m in more) > _CUTS:
        return
    offsets = sorted(
        product(*(range(m + 1) for m in more)),
        key=lambda at: sum(abs(2 * o - m) for o, m in zip(at, more, strict=True)),
    )
    for at in offsets:
        pairs = zip(at, more, strict=True)
        yield tuple(slice(o or None, o - m or None) if m else slice(None) for o, m in pairs)


_CUTS = 200  # places of a part that are tried
_SCALES = 6  # ways of writing one number that are tried
_LINEAR = frozenset(("add", "sub", "mul", "div", "neg", "sum", "mean", "matmul", "mm", "bmm"))


def places(search: Search, node: fx.Node) -> Iterator[tuple[fx.Node, Callable[[fx.Node], tuple[fx.Node, fx.Node]]]]:
    """Where something can be put around a value: what an operation gives, and each known value, or local variable,
    that it reads."""
    yield node, lambda by: (node, by)
    for place, arg in enumerate(node.args):
        parts = list(arg) if isinstance(arg, list | tuple) else [arg]  # of what is put together: `np.hstack((di, df))`
        for k, value in enumerate(parts):
            if is_tensor(value) and (value not in search.position or value.meta.get("name")):  # type: ignore[union-attr]
                yield value, functools.partial(_read_as, search, node, place, None if parts[0] is arg else k)  # type: ignore[misc]


def _read_as(search: Search, node: fx.Node, place: int, part: int | None, by: fx.Node) -> tuple[fx.Node, fx.Node]:
    """An operation with another operand, or another part of one that is a list."""
    held: Any = node.args[place]
    arg = by if part is None else [*held[:part], by, *held[part + 1 :]]
    return node, search.around.sketches.like(node, (*node.args[:place], arg, *node.args[place + 1 :]))


def factors(search: Search, at: fx.Node, derived: bool) -> Iterator[Mutation]:
    """A factor that was forgotten, of the right gradient or (where not `derived`) in reach; or one too many."""
    sketches, values = search.around.sketches, search.trials[0].values
    reach = search.around.names(at)
    for node, put in places(search, at):
        value = values.get(node)
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            continue
        far = WRAPPED + (1.0 if node is search.root else 1.2) + (0 if derived else 0.2)
        for factor in [f for f in search.factors if f not in reach] if derived else reach:
            known = values.get(factor)
            if not isinstance(known, torch.Tensor) or factor is node:
                continue
            if (
                derived
                and known.numel() < 2
                and (len(search.trials) < 2 or same(search.trials[1].values.get(factor), known))
            ):
                continue  # a number
            if 0 < known.ndim < value.ndim and known.shape == value.shape[: known.ndim] != value.shape[-known.ndim :]:
                index = (*[slice(None)] * known.ndim, *[None] * (value.ndim - known.ndim))
                factor = sketches.operation("getitem", factor, index)
            late = factor in search.around.gradients and node not in search.around.carries
            masked = is_mask(factor) and any(is_tensor(a) and is_mask(a) for a in node.args)
            cause = "upstream-dropped" if late else "wrong-mask" if masked else "missing-factor"
            divides = factor.meta.get("same_as", factor) in search.around.divisors
            makes = "missing-factor" if divides else "double-applied"
            yield Mutation(*put(sketches.operation("mul", node, factor)), cause, far, makes)
            if not derived:
                by = sketches.operation("div", node, factor)
                cause = "missing-factor" if divides else "wrong-factor"
                yield Mutation(*put(by), cause, far + 0.1, "wrong-factor")


def sums(search: Search, node: fx.Node) -> Iterator[Mutation]:
    """A sum that is missing on the way: `(dp * p).sum(-1, keepdim=True)`."""
    value = search.trials[0].values.get(node)
    if isinstance(value, torch.Tensor) and value.dtype.is_floating_point and node is not search.root:
        for axis in range(value.ndim):
            by = search.around.sketches.method("sum", node, axis, keepdim=True)
            yield Mutation(node, by, "missing-broadcast-sum", WRAPPED + 0.8)


def activated(search: Search, at: fx.Node) -> Iterator[Mutation]:
    """A value before its activation in the place of that after it."""
    values, sketches = search.trials[0].values, search.around.sketches
    for node, put in places(search, at):
        value = values.get(node)
        if isinstance(value, torch.Tensor) and value.dtype.is_floating_point:
            for name in ("sigmoid", "tanh", "exp", "relu", "log", "sign", "abs"):
                yield Mutation(*put(sketches.method(name, node)), "wrong-tensor", WRAPPED + 1.3)
            for axis in range(-1, -1 - value.ndim, -1):
                yield Mutation(*put(sketches.method("softmax", node, axis)), "wrong-tensor", WRAPPED + 1.3)


def complements(search: Search, at: fx.Node) -> Iterator[Mutation]:
    """A factor that was forgotten, made of a value in reach: `1 - s`, `s * (1 - s)`, `1 - t * t`, `~mask`."""
    operation, values = search.around.sketches.operation, search.trials[0].values
    named = search.around.names(at) if at.meta.get("spot") is not None else {}
    pairs = [(place, node) for place in places(search, at) for node in named]
    if named and at not in named:
        pairs.append(((at, lambda by: (at, by)), at))  # `s * (1 - s)` for `s`
    for (value, put), node in pairs:
        known, size = values.get(node), getattr(values.get(value), "shape", None)
        if not isinstance(known, torch.Tensor) or known.numel() < 2:
            continue
        if known.shape != size or node in search.around.carries:
            continue
        if known.dtype == torch.bool:
            by = operation("mul", value, operation("bitwise_not", node))
            yield Mutation(*put(by), "missing-factor", WRAPPED + 1.4, "double-applied")
        if not known.is_floating_point():
            continue
        for way in range(3):  # each from sketches of its own
            inner = operation("mul", node, node) if way == 2 else node
            factor = operation("sub", 1, inner)
            factor = operation("mul", node, factor) if way == 1 else factor
            yield Mutation(*put(operation("mul", value, factor)), "missing-factor", WRAPPED + 1.4, "double-applied")


def terms(search: Search, at: fx.Node) -> Iterator[Mutation]:
    """A value in reach that should be added or taken away: `p * (dp - inner)`."""
    values, sketches = search.trials[0].values, search.around.sketches
    for node, put in places(search, at):
        for other in search.around.names(at):
            known = values.get(other)
            if (
                isinstance(values.get(node), torch.Tensor)
                and isinstance(known, torch.Tensor)
                and known.dtype.is_floating_point
            ):
                for operation in ("add", "sub"):
                    made = put(sketches.operation(operation, node, other))
                    inside = made[0] is not node and made[0].meta["operation"] not in _LINEAR
                    yield Mutation(*made, "wrong-factor" if inside else "missing-term", WRAPPED + 1.5)


def ones(search: Search, node: fx.Node) -> Iterator[Mutation]:
    """The one that was forgotten in a factor: `1 - t**2`."""
    value = search.trials[0].values.get(node)
    if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point or node in search.around.carries:
        return
    sketches = search.around.sketches
    if node.meta["operation"] == "neg":
        yield Mutation(node, sketches.operation("sub", 1, node.args[0]), "missing-term", WRAPPED + 0.4)
    yield Mutation(node, sketches.operation("add", 1, node), "missing-term", WRAPPED + 0.45)
    yield Mutation(node, sketches.operation("sub", 1, node), "missing-term", WRAPPED + 0.5)


def products(search: Search) -> Iterator[Mutation]:
    """A gradient times a value in reach that should be added, or taken away: `grad * right`."""
    sketches, root, values = search.around.sketches, search.root, search.trials[0].values
    size = getattr(values.get(root), "shape", None)
    for gradient in (n for n in search.around.reach if n in search.around.gradients):
        for other in search.around.reach:
            known = values.get(other)
            fits = isinstance(known, torch.Tensor) and known.shape == size and known.dtype.is_floating_point
            if fits and getattr(values.get(gradient), "shape", None) == size and other is not gradient:
                for operation in ("add", "sub"):
                    product = sketches.operation("mul", gradient, other)
                    by = sketches.operation(operation, root, product)
                    yield Mutation(root, by, "missing-term", WRAPPED + 1.2)


def averages(search: Search) -> Iterator[Mutation]:
    """The mean of the root and of another value in reach, where one of two halves of a loss was left out."""
    sketches, root, trial = search.around.sketches, search.root, search.trials[0]
    value, goal = trial.values.get(root), trial.goal
    if not isinstance(value, torch.Tensor) or value.shape != goal.shape:
        return
    for other in (n for n in search.around.reach if n is not root):
        known = trial.values.get(other)
        if isinstance(known, torch.Tensor) and known.shape == goal.shape and same((value + known) / 2, goal):
            by = sketches.operation("mul", 0.5, sketches.operation("add", root, other))
            yield Mutation(root, by, "lost-path", WRAPPED + 1.3)


def regularisers(search: Search) -> Iterator[Mutation]:
    """A number times a value in reach that should be added: `reg * w`."""
    sketches, root, trial = search.around.sketches, search.root, search.trials[0]
    value, goal = trial.values.get(root), trial.goal
    if not isinstance(value, torch.Tensor) or value.shape != goal.shape:
        return
    lost = goal - value
    reach = {n: v for n in search.around.reach if isinstance(v := trial.values.get(n), torch.Tensor)}
    scalars = [None, *(n for n, v in reach.items() if not v.ndim and v.is_floating_point())]
    for other, held in reach.items():
        for scalar in scalars if held.shape == goal.shape and bool(held.any()) else ():
            known = held if scalar is None else held * reach[scalar]
            number = float((lost * known).sum() / (known * known).sum())
            if not number or not same(known * number, lost):
                continue
            for place in range(1 if abs(number - 1) < 1e-9 else _SCALES):
                term = other if scalar is None else sketches.operation("mul", scalar, other)  # which lives for one try
                if abs(number - 1) >= 1e-9:
                    ways = search.scales.scaled(term, round(number, 12), trial.values)
                    term = next(islice(ways, place, None), None)  # type: ignore[assignment]
                if term is not None:
                    yield Mutation(root, sketches.operation("add", root, term), "lost-path", WRAPPED + 1.1)
