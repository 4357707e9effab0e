"""Views, parts, joins and turns: where the rows are afterwards."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

from chainrule.compiling.slicing.rules.book import only, rows_of, rule, value_of
from chainrule.compiling.slicing.shares import NotByRows, Rows, Share, Shares, argument, axes

aten = torch.ops.aten


@rule(aten.view.default)
def view(s: Shares, node: fx.Node) -> Share:
    """The axis of rows joins those after it, or is parted from them; what stands before stays."""
    source, rows = only(s, node)
    old, new = value_of(source).shape, value_of(node).shape
    before, after = prod(old[: rows.axis]), prod(old[rows.axis + 1 :])
    for axis, length in enumerate(new):
        if prod(new[:axis]) == before and length > 1:
            if length % s.rows or prod(new[axis + 1 :]) * (length // s.rows) != rows.each * after:
                raise NotByRows
            result = Rows(axis, length // s.rows)
            s.replace(node, "size", [*new[:axis], s.length(result), *new[axis + 1 :]])
            return result
    raise NotByRows


@rule(aten.expand.default)
def expand(s: Shares, node: fx.Node) -> Share:
    """Axes are added in front."""
    source, rows = only(s, node)
    shape = list(value_of(node).shape)
    result = Rows(rows.axis + len(shape) - value_of(source).ndim, rows.each)
    shape[result.axis] = s.length(result)
    s.replace(node, "size", shape)
    return result


@rule(aten.permute.default)
def permute(s: Shares, node: fx.Node) -> Share:
    source, rows = only(s, node)
    order = [a % value_of(source).ndim for a in argument(node, "dims")]
    return Rows(order.index(rows.axis), rows.each)


@rule(aten.transpose.int, aten.t.default)
def transpose(s: Shares, node: fx.Node) -> Share:
    source, rows = only(s, node)
    ndim = value_of(source).ndim
    swapped: Any = (0, ndim - 1) if node.target is aten.t.default else node.args[1:]
    first, second = (a % ndim for a in swapped)
    return Rows({first: second, second: first}.get(rows.axis, rows.axis), rows.each)


@rule(aten.unsqueeze.default)
def unsqueeze(s: Shares, node: fx.Node) -> Share:
    _, rows = only(s, node)
    at = argument(node, "dim") % value_of(node).ndim
    return Rows(rows.axis + (at <= rows.axis), rows.each)


@rule(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.select.int)
def axes_that_go(s: Shares, node: fx.Node) -> Share:
    """One axis is selected, or those of length 1 go."""
    source, rows = only(s, node)
    shape = value_of(source).shape
    named = set(range(len(shape))) if node.target is aten.squeeze.default else axes(node, len(shape))
    gone = named if node.target is aten.select.int else {a for a in named if shape[a] == 1}
    if rows.axis in gone:
        raise NotByRows
    return Rows(rows.axis - sum(a < rows.axis for a in gone), rows.each)


@rule(aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
def along_another(s: Shares, node: fx.Node) -> Share | tuple[Share, ...]:
    """Parts of another axis than that of the rows."""
    source, rows = only(s, node)
    (axis,) = axes(node, value_of(source).ndim)
    if axis == rows.axis:
        raise NotByRows
    if node.target is aten.unbind.int:
        rows = Rows(rows.axis - (axis < rows.axis), rows.each)
    return (rows,) * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rows


@rule(aten.cat.default)
def cat(s: Shares, node: fx.Node) -> Share:
    rows = rows_of(s, node)
    if rows.axis in axes(node, value_of(node).ndim):
        raise NotByRows
    for operand, _ in s.operands(node):
        s.by_rows(node, operand, rows)
    return rows


@rule(aten.stack.default)
def stack(s: Shares, node: fx.Node) -> Share:
    rows, at = rows_of(s, node), argument(node, "dim") % value_of(node).ndim
    for operand, _ in s.operands(node):
        s.by_rows(node, operand, rows)
    return Rows(rows.axis + (at <= rows.axis), rows.each)


@rule(aten.flip.default, aten.roll.default)
def turned(s: Shares, node: fx.Node) -> Share:
    source, rows = only(s, node)
    if rows.axis in axes(node, value_of(source).ndim, "dims"):
        raise NotByRows
    return rows


@rule(aten.tril.default, aten.triu.default)
def triangle(s: Shares, node: fx.Node) -> Share:
    source, rows = only(s, node)
    if rows.axis >= value_of(source).ndim - 2:
        raise NotByRows
    return rows
