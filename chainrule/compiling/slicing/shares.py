"""What a slice of the batch has of each value: its rows of it, a part of a sum, or all of it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.memory import size_of

FEW = 1 << 16  # bytes, of which nobody asks
CHEAP = 1 / 16  # of all bytes that a step computes: what may be computed beforehand for all rows, and again in slices


@dataclass(frozen=True)
class Rows:
    """Along `axis`, each row of the batch has `each` places."""

    axis: int
    each: int = 1


WHOLE, PART, AFTER = "whole", "part", "after"  # each slice has all of it; a term of a sum; computed from such a sum

Share = Rows | str
Rule = Callable[["Shares", fx.Node], Share | tuple[Share, ...]]


class NotByRows(Exception):
    """The step cannot be taken in slices."""


class Shares:
    """The share of every value of `lowered`, for `count` slices of the first axis of the batch.

    Raises NotByRows where an operation mixes rows, or is not known here."""

    def __init__(self, lowered: Lowered, count: int, rule_of: Callable[[Any], Rule | None]) -> None:
        self.lowered, self.rule_of = lowered, rule_of
        given = [n for n in lowered.batch if n is not None]
        lengths = [n.meta["val"].shape[0] for n in given if n.meta["val"].ndim]
        self.rows = lengths[0] if lengths else 0
        if self.rows % count or self.rows <= count:
            raise NotByRows
        self.size = self.rows // count  # rows of a slice
        self.of: dict[fx.Node, Share | tuple[Share, ...]] = {}
        self.taken: dict[tuple[fx.Node, fx.Node], Rows] = {}  # (reader, value): a whole value that is read by rows
        self.args: dict[fx.Node, tuple[Any, ...]] = {}  # of a slice, where they name sizes
        self.joined: set[fx.Node] = set()  # terms of a sum that were added: each is added to the sum by itself
        self.known: dict[fx.Node, None] = {}  # sums that slices read: computed before, for all rows
        for node in lowered.graph.nodes:
            if node.op == "placeholder":
                shape = node.meta["val"].shape
                self.of[node] = Rows(0) if node in given and shape and shape[0] == self.rows else WHOLE
            elif node.op == "call_function":
                self.of[node] = self._share(node)

    def _share(self, node: fx.Node) -> Share | tuple[Share, ...]:
        if node.target is operator.getitem:
            share = self.share(node.args[0])  # type: ignore[arg-type]
            picked: Share = share[cast(int, node.args[1])] if isinstance(share, tuple) else share
            return picked
        shares = {self.share(n) for n in node.all_input_nodes}
        if shares == {PART} and node.target is torch.ops.aten.add.Tensor and not node.kwargs and _alike(node):
            self.joined.add(node)
            return PART
        if shares == {PART} and node.target is torch.ops.aten._to_copy.default and _widens(node):
            return PART  # so that what is rounded is not summed
        if not any(isinstance(s, Rows) for s in shares):
            return AFTER if shares & {PART, AFTER} else WHOLE
        for read in node.all_input_nodes:
            if self.share(read) in (PART, AFTER):
                self._compute_before(read)
        rule = self.rule_of(node.target)
        if rule is None:
            raise NotByRows
        return rule(self, node)

    def share(self, node: fx.Node) -> Any:
        """What a slice has of a value: a tuple where there are several."""
        return WHOLE if node in self.known else self.of[node]

    def _compute_before(self, node: fx.Node) -> None:
        """Have a sum computed from all rows beforehand, if that takes little."""
        cone = [n for n in ancestors(node, self.known) if self.share(n) is not WHOLE]
        allowed = max(FEW, CHEAP * sum(map(_bytes, self.lowered.graph.nodes)))
        if any(n.target in PRODUCTS for n in cone) or sum(map(_bytes, cone)) > allowed:
            raise NotByRows
        self.known[node] = None

    # -- for rules -----------------------------------------------------------------------------------

    def by_rows(self, reader: fx.Node, operand: Any, rows: Rows) -> None:
        """Read an operand by rows: it has that share, or is whole and as long."""
        if not isinstance(operand, fx.Node):
            return
        share, shape = self.share(operand), operand.meta["val"].shape
        if share == rows:
            return
        if share is not WHOLE or len(shape) <= rows.axis or shape[rows.axis] != self.rows * rows.each:
            raise NotByRows
        self.taken[reader, operand] = rows

    def all_of(self, *operands: Any) -> None:
        """Operands that a slice must have all of."""
        for operand in operands:
            if isinstance(operand, fx.Node) and self.share(operand) is not WHOLE:
                raise NotByRows

    def length(self, rows: Rows) -> int:
        """Of the axis, in a slice."""
        return self.size * rows.each

    def operands(self, node: fx.Node) -> Iterator[tuple[fx.Node, Any]]:
        """The values that a node reads, with their shares."""
        for operand in node.all_input_nodes:
            yield operand, self.share(operand)

    def replace(self, node: fx.Node, name: str, value: Any) -> None:
        """In a slice, another argument for the parameter `name`."""
        args = list(self.args.get(node, node.args))
        position = [a.name for a in node.target._schema.arguments].index(name)  # type: ignore[union-attr]
        if position >= len(args):
            raise NotByRows
        args[position] = value
        self.args[node] = tuple(args)


def ancestors(node: fx.Node, known: Collection[fx.Node] = ()) -> list[fx.Node]:
    """The operations that a value needs beside what is known, itself among them, in no order."""
    found: dict[fx.Node, None] = {}
    waiting = [node]
    while waiting:
        last = waiting.pop()
        if last not in found and last.op == "call_function" and last not in known:
            found[last] = None
            waiting += last.all_input_nodes
    return list(found)


def argument(node: fx.Node, name: str) -> Any:
    """What a call gives for a parameter of its schema, by position, by name or by default."""
    for i, parameter in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if parameter.name == name:
            if name in node.kwargs:
                return node.kwargs[name]
            return node.args[i] if i < len(node.args) else parameter.default_value
    raise NotByRows


def axes(node: fx.Node, ndim: int, name: str = "dim") -> set[int]:
    """The axes that an argument names, counted from the front; none named is all."""
    given = argument(node, name)
    if given is None or given == []:
        return set(range(ndim))
    return {a % ndim for a in ([given] if isinstance(given, int) else given)} if ndim else set()


def _alike(node: fx.Node) -> bool:
    shapes = {n.meta["val"].shape for n in (node, *node.all_input_nodes)}
    return len(shapes) == 1 and all(isinstance(a, fx.Node) for a in node.args)


def _widens(node: fx.Node) -> bool:
    (given,) = node.all_input_nodes
    before, after = given.meta["val"].dtype, node.meta["val"].dtype
    return bool(before.is_floating_point and after.is_floating_point and after.itemsize > before.itemsize)


def _bytes(node: fx.Node) -> int:
    value = node.meta.get("val") if node.op == "call_function" else None
    values = value if isinstance(value, tuple | list) else [value]
    return sum(size_of(v) for v in values if isinstance(v, torch.Tensor))


PRODUCTS = {
    torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default,
}  # fmt: skip
