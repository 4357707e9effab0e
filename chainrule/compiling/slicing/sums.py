"""Identities that write a mean as a sum: sums of slices add up, means do not."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from chainrule.compiling.forms import Row

aten = torch.ops.aten

_MEAN, _SUM = 1, 2


def _call(graph: fx.Graph, like: Any, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    node = graph.call_function(target, args, kwargs)
    node.meta["val"] = like
    return node


def _mean(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """mean(x) = sum(x) / n"""
    if node.target not in (aten.mean.default, aten.mean.dim) or not isinstance(node.args[0], fx.Node):
        return None
    value, given = node.meta["val"], node.args[0].meta["val"]
    if not value.numel() or not given.numel():
        return None
    total = aten.sum.default if node.target is aten.mean.default else aten.sum.dim_IntList
    with graph.inserting_before(node):
        summed = _call(graph, value, total, *node.args, **node.kwargs)
        return _call(graph, value, aten.mul.Tensor, summed, value.numel() / given.numel())


_LOSSES = {
    aten.mse_loss_backward.default: 3, aten.huber_loss_backward.default: 3, aten.smooth_l1_loss_backward.default: 3,
    aten.binary_cross_entropy_backward.default: 4,
}  # fmt: skip


def _mean_backward(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """the backward pass of a loss's mean = that of its sum, for upstream / n"""
    at = _LOSSES.get(node.target)  # type: ignore[call-overload]
    if at is None or node.kwargs or (node.args[at] if len(node.args) > at else _MEAN) != _MEAN:
        return None
    upstream: Any = node.args[0]
    count = node.meta["val"].numel()
    if not count or any(n.meta["val"].numel() != count for n in node.args[1:3]):  # type: ignore[union-attr]
        return None
    with graph.inserting_before(node):
        share = _call(graph, upstream.meta["val"], aten.mul.Tensor, upstream, 1 / count)
        args = list(node.args)
        args[0], args[at] = share, _SUM
        return _call(graph, node.meta["val"], node.target, *args)


def _negative_log_likelihood(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """the mean of negative log-likelihoods = their sum / the sum of weights, which is one of the targets alone"""
    call: Any = node.args[0] if node.target is operator.getitem else None
    if not isinstance(call, fx.Node) or call.target is not aten.nll_loss_forward.default or call.kwargs:
        return None
    values, target, weight, reduction, ignored = call.args
    given: torch.Tensor = target.meta["val"]  # type: ignore[union-attr]
    if given.ndim != 1 or weight is not None or reduction != _MEAN:
        return None
    loss, total = call.meta["val"]
    with graph.inserting_before(node):
        if "counted" not in call.meta:
            counts = _call(graph, given.bool(), aten.ne.Scalar, target, ignored)
            call.meta["counted"] = _call(graph, total, aten.sum.default, counts, dtype=total.dtype)
        counted: fx.Node = call.meta["counted"]
        if node.args[1] == 1:
            return counted
        summed = _call(graph, (loss, total), call.target, values, target, weight, _SUM, ignored)
        first = _call(graph, loss, operator.getitem, summed, 0)
        return _call(graph, loss, aten.div.Tensor, first, counted)


ROWS: list[Row] = [_mean, _mean_backward, _negative_log_likelihood]
