"""What a mean, a norm or a softmax takes away from a gradient, where it was forgotten: `g - g.mean(-1, keepdim=True)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import WRAPPED, Mutation
from chainrule.diagnosis.explaining.wraps import places
from chainrule.diagnosis.truth.sketch import Sketches

if TYPE_CHECKING:
    from chainrule.diagnosis.explaining.search import Search

_Term = tuple[Callable[[], fx.Node], str]  # what makes it, and the cause where it is missing


def projections(search: Search, node: fx.Node) -> Iterator[Mutation]:
    """Terms made of a gradient and a value in reach, taken away from what an operation gives or reads where that depends
    on gradients; the sum of a gradient, as a factor of what does not."""
    values, sketches = search.trials[0].values, search.around.sketches
    gradients = search.around.carries | search.around.gradients
    if node is search.root:
        for whole in _softmax_backward(search):
            yield Mutation(node, whole(), "diagonal-jacobian", WRAPPED + 0.8)
        for axis in range(search.trials[0].goal.ndim):  # x - x.mean(), where what came before is right
            by = sketches.operation("sub", node, _mean(sketches, node, axis)())
            yield Mutation(node, by, "lost-path", WRAPPED + 1.0)
    for value, put in places(search, node):
        if value in gradients and isinstance(values.get(value), torch.Tensor):
            for term, cause in _terms(search):
                yield Mutation(*put(sketches.operation("sub", value, term())), cause, WRAPPED + 1.0)
        elif value not in gradients:
            for total in _totals(search, value):
                product = sketches.operation("mul", value, total())
                yield Mutation(*put(product), "missing-factor", WRAPPED + 1.0)


def _terms(search: Search) -> Iterator[_Term]:
    values, reach, sketches = search.trials[0].values, search.around.reach, search.around.sketches
    for gradient in (n for n in reach if n in search.around.gradients):
        shape = getattr(values.get(gradient), "shape", ())
        others = [n for n in reach if n not in search.around.gradients]
        alike = [n for n in others if getattr(values.get(n), "shape", None) == shape]
        for axis in (-1, *range(len(shape) - 1)) if shape else ():
            yield _mean(sketches, gradient, axis), "lost-path"
            for other in alike:
                yield _along(sketches, gradient, other, axis, "mean"), "lost-path"
                yield _along(sketches, gradient, other, axis, "sum"), "lost-path"
                yield _inner(sketches, gradient, other, axis, "sum"), "missing-term"
                yield _times_sum(sketches, gradient, other, axis), "missing-term"
                yield _both(sketches, gradient, other, axis), "lost-path"


def _totals(search: Search, value: fx.Node) -> Iterator[Callable[[], fx.Node]]:
    """What a gradient in reach sums to, along an axis of a value: as of what went through a `log_softmax`."""
    values, sketches = search.trials[0].values, search.around.sketches
    shape = getattr(values.get(value), "shape", ())
    for gradient in (n for n in search.around.reach if n in search.around.gradients and shape):
        if getattr(values.get(gradient), "shape", None) == shape:
            for axis in (-1, *range(len(shape) - 1)):
                yield lambda g=gradient, a=axis: sketches.method("sum", g, a, keepdim=True)  # type: ignore[misc]


def _softmax_backward(search: Search) -> Iterator[Callable[[], fx.Node]]:
    """All of a softmax's Jacobian, for each value in reach that sums to one, and each gradient like it."""
    values, reach, sketches = search.trials[0].values, search.around.reach, search.around.sketches
    size = search.trials[0].goal.shape
    alike = [n for n in reach if getattr(values.get(n), "shape", None) == size]
    for p in (n for n in alike if n not in search.around.gradients and n not in search.around.carries):
        for axis in (a for a in (-1, *range(len(size) - 1)) if size and _sums_to_one(values[p], a)):
            for gradient in (n for n in alike if n in search.around.gradients):
                yield lambda g=gradient, p=p, a=axis: sketches.operation(  # type: ignore[misc]
                    "mul", p, sketches.operation("sub", g, _inner(sketches, g, p, a, "sum")())
                )


def _sums_to_one(value: torch.Tensor, axis: int) -> bool:
    if not value.is_floating_point() or value.shape[axis] < 2:
        return False
    return bool(((value.sum(axis) - 1).abs() < 1e-9).all())


def _mean(sketches: Sketches, gradient: fx.Node, axis: int) -> Callable[[], fx.Node]:
    return lambda: sketches.method("mean", gradient, axis, keepdim=True)


def _inner(sketches: Sketches, gradient: fx.Node, other: fx.Node, axis: int, by: str) -> Callable[[], fx.Node]:
    return lambda: sketches.method(by, sketches.operation("mul", gradient, other), axis, keepdim=True)


def _along(sketches: Sketches, gradient: fx.Node, other: fx.Node, axis: int, by: str) -> Callable[[], fx.Node]:
    return lambda: sketches.operation("mul", other, _inner(sketches, gradient, other, axis, by)())


def _times_sum(sketches: Sketches, gradient: fx.Node, other: fx.Node, axis: int) -> Callable[[], fx.Node]:
    return lambda: sketches.operation("mul", other, sketches.method("sum", gradient, axis, keepdim=True))


def _both(sketches: Sketches, gradient: fx.Node, other: fx.Node, axis: int) -> Callable[[], fx.Node]:
    parts = _mean(sketches, gradient, axis), _along(sketches, gradient, other, axis, "mean")
    return lambda: sketches.operation("add", parts[0](), parts[1]())
