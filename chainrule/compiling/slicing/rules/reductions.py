"""Sums and other reductions: of each row, or over the rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from chainrule.compiling.slicing.rules.book import only, rows_of, rule, value_of
from chainrule.compiling.slicing.shares import PART, NotByRows, Rows, Share, Shares, argument, axes

aten = torch.ops.aten


@rule(aten.sum.default)
def sum_of_all(s: Shares, node: fx.Node) -> Share:
    return PART


@rule(aten.sum.dim_IntList)
def sum_of_axes(s: Shares, node: fx.Node) -> Share:
    source, rows = only(s, node)
    return PART if rows.axis in axes(node, value_of(source).ndim) else _reduced(s, node)


@rule(
    aten.amax.default, aten.amin.default, aten.any.dim, aten.all.dim, aten.argmax.default, aten.argmin.default,
    aten.max.dim, aten.min.dim, aten.var.correction, aten.std.correction, aten.var_mean.correction,
    aten.logsumexp.default, aten.linalg_vector_norm.default, aten.prod.dim_int,
)  # fmt: skip
def reduced(s: Shares, node: fx.Node) -> Share | tuple[Share, ...]:
    """A reduction of other axes than that of the rows."""
    rows = _reduced(s, node)
    return (rows,) * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rows


def _reduced(s: Shares, node: fx.Node) -> Rows:
    source, rows = only(s, node)
    gone = axes(node, value_of(source).ndim)
    if rows.axis in gone:
        raise NotByRows
    return rows if argument(node, "keepdim") else Rows(rows.axis - sum(a < rows.axis for a in gone), rows.each)


@rule(
    aten._softmax.default, aten._log_softmax.default, aten._softmax_backward_data.default,
    aten._log_softmax_backward_data.default, aten.cumsum.default, aten.cumprod.default, aten.logcumsumexp.default,
    aten.sort.default, aten.topk.default, aten.gather.default, aten.scatter_add.default,
)  # fmt: skip
def along_one_axis(s: Shares, node: fx.Node) -> Share | tuple[Share, ...]:
    """What goes along one axis, and leaves the others alone."""
    rows = rows_of(s, node)
    first: Any = node.args[0]
    if rows.axis in axes(node, value_of(first).ndim):
        raise NotByRows
    for operand, _ in s.operands(node):
        s.by_rows(node, operand, rows)
    return (rows,) * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rows
