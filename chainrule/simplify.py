"""Rewrite rows on the graph of the backward pass, each with its identity beside it.

A row looks at one node and gives the node that may stand in its place, or None. Rows know shapes,
never values.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.backward import Program
from chainrule.products import Product
from chainrule.rules import BOOK
from chainrule.rules.broadcast import broadcast
from chainrule.run import filled, needed

Row = Callable[["Rewriter", fx.Node], fx.Node | None]
ROWS: dict[str, list[Row]] = {}


def row(identity: str, *operations: str) -> Callable[[Row], Row]:
    """A row for nodes of `operations`; `identity` is the equation that makes it right."""

    def add(function: Row) -> Row:
        function.identity = identity  # type: ignore[attr-defined]
        for operation in operations:
            ROWS.setdefault(operation, []).append(function)
        return function

    return add


def simplify(program: Program) -> None:
    """Bring the backward pass of `program` to the form that an expert would have written, in place."""
    rewriter = Rewriter(program)
    for _ in range(_ENOUGH):
        if not rewriter.sweep():
            break
    rewriter.remove_dead()


_ENOUGH = 100  # sweeps: a pair of rows that undo each other must not hang anybody's program


class Rewriter:
    def __init__(self, program: Program) -> None:
        self.program, self.graph = program, program.graph

    def roots(self) -> list[fx.Node]:
        wanted = [self.program.gradients[n] for n in self.program.wanted if n in self.program.gradients]
        return [self.program.output, *wanted, *(g.node for g in self.program.guards)]

    def sweep(self) -> bool:
        self.remove_dead()
        self._merge_equal()
        changed = False
        for node in list(self.graph.nodes):
            if node.meta.get("erased"):
                continue
            for candidate in ROWS.get(node.meta.get("operation", ""), ()):
                if node.meta["phase"] != "backward" and node.meta["operation"] not in ("shape", "numel"):
                    continue
                with self.graph.inserting_before(node):
                    better = candidate(self, node)
                if better is not None and better is not node:
                    self.replace(node, better)
                    changed = True
                    break
        return changed

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        old.replace_all_uses_with(new)
        for forward, gradient in self.program.gradients.items():
            if gradient is old:
                self.program.gradients[forward] = new
        for guard in self.program.guards:
            if guard.node is old:
                guard.node = new
        self._erase(old)

    def call(self, target: Any, *args: Any, operation: str = "") -> fx.Node:
        """A new node before the one under rewriting, with its shape."""
        kind = self.graph.call_method if isinstance(target, str) else self.graph.call_function
        node = kind(target, args)
        node.meta.update(operation=operation or _operation(target), phase="backward")
        node.meta.update(val=infer(node), planned=True)
        return node

    def _erase(self, node: fx.Node) -> None:
        if not node.users:
            node.meta["erased"] = True
            self.graph.erase_node(node)

    def remove_dead(self) -> None:
        roots = set(self.roots())
        live_gradients = set(self.program.gradients.values())
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("placeholder", "output") or node.users or node in roots:
                continue
            if node.meta["phase"] == "backward" or node.meta["operation"] in ("shape", "shape_entry", "numel"):
                self._erase(node)
        if any(g.meta.get("erased") for g in live_gradients):
            kept = {f: g for f, g in self.program.gradients.items() if not g.meta.get("erased")}
            self.program.gradients.clear()
            self.program.gradients.update(kept)

    def _merge_equal(self) -> None:
        """Computed once is enough: a backward node that repeats an earlier one is that one."""
        seen: dict[Any, fx.Node] = {}
        forward = set(needed([self.program.output]))
        for node in list(self.graph.nodes):
            if node.meta["phase"] == "forward" and node not in forward:
                continue  # what the person computed besides may be overwritten by now
            if node.op not in ("call_function", "call_method") or node.meta.get("written"):
                continue
            key = (node.op, _key(node.target), _key(node.args), _key(node.kwargs))
            first = seen.setdefault(key, node)
            if first is not node and node.meta["phase"] == "backward":
                self.replace(node, first)


def _key(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_key(v) for v in value)
    if isinstance(value, slice):
        return ("slice", _key(value.start), _key(value.stop), _key(value.step))
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in value.items())
    if isinstance(value, fx.Node):
        return ("node", id(value))
    return (type(value), repr(value)) if isinstance(value, int | float | str | complex) else id(value)


def _operation(target: Any) -> str:
    from chainrule.recording.calls import SYNONYMS

    name = target if isinstance(target, str) else target.__name__
    return SYNONYMS.get(name.rstrip("_"), name.rstrip("_"))


def infer(node: fx.Node) -> Any:
    """What `node` gives, as a tensor of the right shape and dtype that holds no numbers."""
    args: Any = filled(node.args, {n: blank(n.meta["val"]) for n in node.all_input_nodes})
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if node.meta["operation"] in _LIKE_THE_FIRST:
        return args[0]
    if node.meta["operation"] == "type_as":
        return args[0].to(args[1].dtype)
    if tensors and node.meta["operation"] in _ELEMENTWISE:
        dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors])
        if not dtype.is_floating_point and any(isinstance(a, float) for a in args):
            dtype = torch.get_default_dtype()
        return torch.empty((), dtype=dtype).expand(broadcast(*(tuple(t.shape) for t in tensors)))
    if node.op == "call_method":  # the other rows make views, which cost nothing
        return getattr(args[0], str(node.target))(*args[1:])
    assert callable(node.target)
    return node.target(*args)


_ELEMENTWISE = frozenset(("mul", "div", "neg", "add", "sub", "where", "pow"))
_LIKE_THE_FIRST = frozenset(("ones_like", "zeros_like", "full_like"))


def blank(value: Any) -> Any:
    """A tensor of the shape and dtype of `value` in the memory of one element."""
    return torch.empty((), dtype=value.dtype).expand(value.shape) if isinstance(value, torch.Tensor) else value


def shape_of(value: Any) -> tuple[int, ...]:
    return tuple(value.meta["val"].shape) if isinstance(value, fx.Node) and is_tensor(value) else ()


def is_tensor(value: Any) -> bool:
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)


# -- the rows ------------------------------------------------------------------------------------


@row("(a * 1) * (-b) / c * expand(d) = -a * b * d / c", "mul", "div", "neg")
def product(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    if not is_tensor(node) or not node.meta["val"].dtype.is_floating_point:
        return None
    if len(node.users) == 1 and _continues(next(iter(node.users)), node):
        return None  # part of a longer product
    return Product.of(node).rebuilt(rewriter, node)


def _continues(user: fx.Node, node: fx.Node) -> bool:
    below = user.meta["operation"] == "div" and user.args[1] is node
    return user.meta["operation"] in ("mul", "div", "neg") and user.meta["phase"] == "backward" and not below


@row("a + (-b) = a - b", "add")
def difference(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    if node.kwargs or len(node.args) != 2:
        return None
    a, b = node.args
    if _is(b, "neg"):
        return rewriter.call(operator.sub, a, b.args[0])  # type: ignore[union-attr]
    if _is(a, "neg"):
        return rewriter.call(operator.sub, b, a.args[0])  # type: ignore[union-attr]
    return None


@row("a + a = 2 * a", "add")
def doubled(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    if node.kwargs or len(node.args) != 2 or node.args[0] is not node.args[1]:
        return None
    return rewriter.call(operator.mul, 2, node.args[0])


@row("(x^T)^T = x", "mT", "T")
def transposed_back(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    if not isinstance(inner, fx.Node) or inner.meta["operation"] not in ("transpose", "t", "T", "mT"):
        return None
    rank = len(shape_of(inner))
    axes = {a % rank for a in inner.args[1:] if isinstance(a, int)} if inner.meta["operation"] == "transpose" else None
    if rank < 2 or (axes is not None and axes != {rank - 2, rank - 1}):
        return None
    return inner.args[0]  # type: ignore[return-value]


@row("view(c * x / n) = c * view(x) / n", "getitem", "unsqueeze", "T", "mT", "transpose", "permute")
def view_of_scaled(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    if not isinstance(inner, fx.Node) or len(inner.users) > 1 or not _only_adds_axes(node):
        return None
    if inner.meta["operation"] not in ("mul", "div", "neg") or inner.meta["phase"] != "backward":
        return None
    product = Product.of(inner)
    full = [f for f in product.tensors() if shape_of(f)]
    if len(full) != 1 or shape_of(full[0]) != shape_of(inner) or full[0] in product.denominators:
        return None
    target = node.target
    viewed = rewriter.call(target, full[0], *node.args[1:], operation=node.meta["operation"])
    return product.with_factor(full[0], viewed).built(rewriter)


def _only_adds_axes(node: fx.Node) -> bool:
    if node.meta["operation"] != "getitem":
        return True
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    return all(i is None or i is Ellipsis or i == slice(None) for i in index)


@row("f(expand(a), b) = f(a, b) where b has the full shape", "where", "add", "sub", "mul", "div", "pow")
def broadcast_by_itself(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    if not any(_is(a, "expand") for a in node.args):
        return None
    for position, stretched in enumerate(node.args):
        if not _is(stretched, "expand"):
            continue
        assert isinstance(stretched, fx.Node)
        args = list(node.args)
        args[position] = stretched.args[0]
        shapes = [shape_of(a) for a in args]
        if broadcast(*shapes) == shape_of(node):
            return rewriter.call(node.target, *args, operation=node.meta["operation"])
    return None


@row("expand(x, shape(x)) = x", "expand", "sum_to_size", "reshape")
def nothing_to_do(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    return inner if is_tensor(inner) and shape_of(inner) == shape_of(node) else None  # type: ignore[return-value]


@row("expand(c, shape(x)) = full_like(x, c)", "expand")
def ones_of_a_shape(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    like, filled = shaped_like(node), node.args[0]
    if like is None or not isinstance(filled, fx.Node) or _dtype(like) != _dtype(filled):
        return None
    if _is(filled, "ones_like"):
        return rewriter.call(torch.ones_like, like)
    return rewriter.call(torch.full_like, like, filled.args[1]) if _is(filled, "full_like") else None


@row("shape(f(x)) = shape(x) for elementwise f", "shape", "numel", "ones_like", "zeros_like")
def shape_of_an_operand(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    if not isinstance(inner, fx.Node) or not is_tensor(inner) or inner.meta.get("name"):
        return None
    rule = BOOK.find(inner.meta["operation"])
    if rule is None or not rule.elementwise:
        return None
    for operand in inner.all_input_nodes:
        same = is_tensor(operand) and shape_of(operand) == shape_of(inner)
        if same and operand.meta["val"].dtype == inner.meta["val"].dtype:
            if node.target is getattr:
                return rewriter.call(getattr, operand, "shape", operation="shape")
            return rewriter.call(node.target, operand)
    return None


def shaped_like(node: fx.Node) -> fx.Node | None:
    """The node x where `node` is `something.expand(x.shape)`."""
    size = node.args[1] if len(node.args) == 2 else None
    if isinstance(size, fx.Node) and size.meta["operation"] == "shape":
        inner = size.args[0]
        return inner if isinstance(inner, fx.Node) else None
    return None


def _dtype(node: fx.Node) -> Any:
    return getattr(node.meta["val"], "dtype", None)


def _is(value: Any, operation: str) -> bool:
    return isinstance(value, fx.Node) and value.meta.get("operation") == operation and value.meta["phase"] == "backward"
