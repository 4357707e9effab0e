"""The rewrite rows, each with its identity beside it.

A row looks at one node and gives the node that may stand in its place, or None. Rows know shapes,
never values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from chainrule.rules import BOOK
from chainrule.rules.broadcast import broadcast
from chainrule.run import blank
from chainrule.simplify.products import Product, is_part
from chainrule.simplify.rewriter import Rewriter, Row, is_tensor, shape_of, shaped_like

ROWS: dict[str, list[Row]] = {}


def row(identity: str, *operations: str) -> Callable[[Row], Row]:
    """A row for nodes of `operations`; `identity` is the equation that makes it right."""

    def add(function: Row) -> Row:
        function.identity = identity  # type: ignore[attr-defined]
        for operation in operations:
            ROWS.setdefault(operation, []).append(function)
        return function

    return add


@row("(a * 1) * (-b) / c * expand(d) = -a * b * d / c", "mul", "div", "neg")
def product(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    if not is_tensor(node) or not (node.meta["val"].dtype.is_floating_point or node.meta["val"].dtype.is_complex):
        return None
    if len(node.users) == 1 and _continues(next(iter(node.users)), node):
        return None  # part of a longer product
    return Product.of(node).rebuilt(rewriter, node)


def _continues(user: fx.Node, node: fx.Node) -> bool:
    below = user.meta["operation"] == "div" and user.args[1] is node
    product = user.meta["operation"] in ("mul", "div", "neg") and user.meta["phase"] == "backward"
    return product and not below and is_part(node)


@row("a + (-b) = a - b", "add")
def difference(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    if node.kwargs or len(node.args) != 2:
        return None
    a, b = node.args
    if _is(b, "neg"):
        return rewriter.call(operator.sub, a, b.args[0])  # type: ignore[union-attr]
    if isinstance(b, fx.Node) and b.meta["operation"] in ("mul", "div") and is_part(b):
        product = Product.of(b)
        if product.is_negative() and not product.stretched:
            return rewriter.call(operator.sub, a, replace(product, number=0 - product.number).built(rewriter))
    if _is(a, "neg"):
        return rewriter.call(operator.sub, b, a.args[0])  # type: ignore[union-attr]
    return None


@row("sum(-x) = -sum(x)", "sum")
def sum_of_negative(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    if not _is(inner, "neg") or len(inner.users) > 1:  # type: ignore[union-attr]
        return None
    total = rewriter.graph.create_node(node.op, node.target, (inner.args[0], *node.args[1:]), node.kwargs)  # type: ignore[union-attr]
    total.meta.update(operation="sum", phase="backward", val=blank(node.meta["val"]), planned=True)
    return rewriter.call(operator.neg, total)


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


def _dtype(node: fx.Node) -> Any:
    return getattr(node.meta["val"], "dtype", None)


def _is(value: Any, operation: str) -> bool:
    return isinstance(value, fx.Node) and value.meta.get("operation") == operation and value.meta["phase"] == "backward"
