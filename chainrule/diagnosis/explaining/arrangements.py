"""Changes to how values are laid out: operands and axes in the place of one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import REPLACED, WRAPPED, Around, Mutation
from chainrule.diagnosis.truth.sketch import is_tensor


def products(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Operands in the place of one another, transposed or not."""
    a, b = node.args[:2]
    if not is_tensor(a) or not is_tensor(b) or min(a.meta["val"].ndim, b.meta["val"].ndim) < 2:  # type: ignore[union-attr]
        return
    turned = around.sketches.transposed
    choices: list[Callable[[], tuple[Any, Any]]] = [
        lambda: (turned(a), b), lambda: (a, turned(b)), lambda: (b, a), lambda: (turned(b), a),  # type: ignore[arg-type]
        lambda: (b, turned(a)), lambda: (turned(a), turned(b)), lambda: (turned(b), turned(a)),  # type: ignore[arg-type]
    ]  # fmt: skip
    for far, choice in enumerate(choices):
        yield Mutation(node, around.sketches.like(node, choice()), "transposed", REPLACED + 0.01 * far)


def transposes(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """A transpose that is not needed, or of other axes."""
    yield Mutation(node, node.args[0], "transposed", REPLACED)  # type: ignore[arg-type]
    value = node.meta["val"]
    for order in around.orders if node.meta["operation"] == "permute" else ():
        if len(order) == value.ndim and [order] != orders_in([node]):
            yield Mutation(node, around.sketches.method("permute", node.args[0], *order), "transposed", REPLACED + 0.2)
    if isinstance(value, torch.Tensor) and 2 < value.ndim < 5:
        for i, j in combinations(range(value.ndim), 2):
            yield Mutation(node, around.sketches.method("transpose", node.args[0], i, j), "transposed", REPLACED + 0.1)


def reshapes(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """`w.reshape(f, -1).T` for `w.reshape(-1, f)`; axes that the right gradient puts in another order, then or before."""
    value = node.args[0]
    for order in around.orders if is_tensor(value) else ():
        if len(order) == node.meta["val"].ndim:
            yield Mutation(node, around.sketches.method("permute", node, *order), "transposed", WRAPPED + 0.2)
        if len(order) == value.meta["val"].ndim:  # type: ignore[union-attr]
            turned = around.sketches.method("permute", value, *order)
            yield Mutation(node, around.sketches.like(node, (turned, *node.args[1:])), "transposed", WRAPPED + 0.3)
    sizes = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], tuple | list) else node.args[1:]
    if len(sizes) == 2:
        turned = around.sketches.method("reshape", node.args[0], *reversed(sizes))
        yield Mutation(node, around.sketches.attribute(turned, "T"), "transposed", REPLACED + 0.2)


def orders_in(nodes: Iterable[fx.Node]) -> list[tuple[int, ...]]:
    """The orders in which axes are put: `x.permute(0, 2, 1)`."""
    given = (n.args[1:] for n in nodes if n.meta["operation"] == "permute")
    orders = (a[0] if len(a) == 1 and isinstance(a[0], tuple | list) else a for a in given)
    return list(dict.fromkeys(tuple(o) for o in orders if all(isinstance(k, int) for k in o)))


def orders(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Two of the values that are joined in the place of one another."""
    parts = node.args[0]
    if not isinstance(parts, tuple | list):
        return
    for i, j in combinations(range(min(len(parts), 8)), 2):
        swapped = list(parts)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        by = around.sketches.like(node, (type(parts)(swapped), *node.args[1:]))
        yield Mutation(node, by, "wrong-tensor", REPLACED + 0.3)


def einsums(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Two axes of the result, or of an operand, in the place of one another."""
    equation, *operands = node.args
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return
    given, _, result = equation.partition("->")
    parts = [*given.split(","), result]
    for k in reversed(range(len(parts))):
        for i, j in combinations(range(len(parts[k])), 2):
            letters = list(parts[k])
            letters[i], letters[j] = letters[j], letters[i]
            other = [*parts[:k], "".join(letters), *parts[k + 1 :]]
            by = around.sketches.like(node, (f"{','.join(other[:-1])}->{other[-1]}", *operands))
            yield Mutation(node, by, "transposed", REPLACED + 0.1)


def corners(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Another diagonal of a triangular mask, or the other triangle."""
    now = node.kwargs.get("diagonal", node.args[1] if len(node.args) > 1 else 0)
    if not isinstance(now, int):
        return
    other = "triu" if node.meta["operation"] == "tril" else "tril"
    for name in (node.meta["operation"], other):
        target = name if node.op == "call_method" else getattr(torch, name)
        for diagonal in (0, 1, -1):
            if (name, diagonal) != (node.meta["operation"], now):
                args = (node.args[0], *([diagonal] if diagonal else []))
                by = around.sketches.like(node, args, {}, target, name)
                yield Mutation(node, by, "wrong-mask", REPLACED + (0.1 if name == other else 0.0))


def repeated(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Each element several times where all of them were, or the other way round: `repeat_interleave` for `repeat`."""
    value = node.args[0]
    if not is_tensor(value):
        return
    ndim, given = value.meta["val"].ndim, node.args[1:]  # type: ignore[union-attr]
    if node.meta["operation"] == "repeat_interleave":
        axis = given[1] if len(given) > 1 else node.kwargs.get("dim")
        if isinstance(axis, int) and given and not is_tensor(given[0]):
            counts = [given[0] if k == axis % ndim else 1 for k in range(ndim)]
            yield Mutation(node, around.sketches.method("repeat", value, *counts), "wrong-axis", REPLACED + 0.2)
        return
    counts = list(given[0]) if given and isinstance(given[0], tuple | list) else list(given)
    by = value
    for axis, count in enumerate(counts if len(counts) == ndim else []):
        by = around.sketches.method("repeat_interleave", by, count, axis) if count != 1 else by
    if by is not value:
        yield Mutation(node, by, "wrong-axis", REPLACED + 0.2)  # type: ignore[arg-type]
