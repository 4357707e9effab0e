"""Sketches: operations that nobody wrote, added to the graph of a run to see what they would give."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx

from chainrule.run import double, step

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "neg": operator.neg,
    "matmul": operator.matmul, "pow": operator.pow, "gt": operator.gt, "ge": operator.ge, "lt": operator.lt,
    "le": operator.le, "eq": operator.eq, "ne": operator.ne, "bitwise_not": operator.invert,
    "shape_entry": operator.getitem, "getitem": operator.getitem,
}  # fmt: skip


class Sketches:
    """Makes nodes and takes them away again."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.made: list[fx.Node] = []

    def operation(self, name: str, *args: Any) -> fx.Node:
        return self._node("call_function", _OPERATORS[name], args, {}, name)

    def function(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return self._node("call_function", target, args, kwargs, getattr(target, "__name__", "function"))

    def method(self, name: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self._node("call_method", name, args, kwargs, name)

    def attribute(self, value: fx.Node, name: str) -> fx.Node:
        return self._node("call_function", getattr, (value, name), {}, name)

    def size(self, value: fx.Node, axis: int) -> fx.Node:
        return self.operation("shape_entry", self.attribute(value, "shape"), axis)

    def transposed(self, value: fx.Node) -> fx.Node:
        """The transpose of a matrix; of a transpose, what it was made of."""
        if value.meta["operation"] in ("T", "mT", "t", "transpose", "H", "mH") and len(value.all_input_nodes) == 1:
            return value.all_input_nodes[0]
        return self.attribute(value, "T" if value.meta["val"].ndim == 2 else "mT")

    def like(self, node: fx.Node, args: Any = None, kwargs: Any = None, target: Any = None, name: str = "") -> fx.Node:
        """The same call with other arguments, or of another function."""
        made = self._node(node.op, node.target if target is None else target, node.args if args is None else args,
                          dict(node.kwargs) if kwargs is None else kwargs, name or node.meta["operation"])  # fmt: skip
        made.meta["spot"] = node.meta.get("spot")
        return made

    def with_inputs(self, node: fx.Node, swap: Mapping[fx.Node, fx.Node]) -> fx.Node:
        """The same call, reading other values."""

        def other(n: fx.Node) -> fx.Node:
            return swap.get(n, n)

        return self.like(node, fx.map_arg(node.args, other), fx.map_arg(dict(node.kwargs), other))

    def _node(self, kind: str, target: Any, args: Any, kwargs: Any, name: str) -> fx.Node:
        node = self.graph.create_node(kind, target)
        node.args = tuple(args)  # set afterwards: create_node would search them for symbolic sizes
        if kwargs:
            node.kwargs = kwargs
        node.meta.update(operation=name, phase="sketch", val=None)
        self.made.append(node)
        return node

    @contextmanager
    def kept_only_if(self) -> Iterator[list[fx.Node]]:
        """Within, nodes may be made; those that are not put in the list given are taken away at the end."""
        start, kept = len(self.made), []  # type: ignore[var-annotated]
        try:
            yield kept
        finally:
            wanted: set[fx.Node] = set()
            stack = list(kept)
            while stack:
                node = stack.pop()
                if node not in wanted:
                    wanted.add(node)
                    stack.extend(node.all_input_nodes)
            for node in reversed(self.made[start:]):
                if node not in wanted:
                    self.graph.erase_node(node)
            self.made[start:] = [n for n in self.made[start:] if n in wanted]


def value_of(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The value of a node, sketched or recorded; what it reads is computed where it is not known.

    Raises what the operation raises, where the shapes do not fit.
    """
    if node in values:
        return values[node]
    if node.op == "placeholder":
        raise KeyError(node)
    found = {n: value_of(n, values) for n in node.all_input_nodes}
    value = step(node, found, double)
    if node.meta["phase"] == "sketch" and node.meta["val"] is None:
        node.meta["val"] = value
    return value


def is_size(node: Any) -> bool:
    """Whether a node stands for a number that Python knows: a size, or made of sizes."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), int | float)


def is_tensor(node: Any) -> bool:
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)
