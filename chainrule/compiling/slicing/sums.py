"""Identities that write a mean as a sum: sums of slices add up, means do not."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.forms import Row

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


def _loss_of_each(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """the mean of a loss = the sum of the loss of each element / n"""
    if node.target not in (aten.binary_cross_entropy.default, aten.binary_cross_entropy_with_logits.default):
        return None
    at = 3 if node.target is aten.binary_cross_entropy.default else 4
    reduction = node.args[at] if len(node.args) > at else node.kwargs.get("reduction", _MEAN)
    values, target = (n.meta["val"] for n in node.args[:2])  # type: ignore[union-attr]
    if reduction not in (_MEAN, _SUM) or not values.numel() or values.shape != target.shape:
        return None
    given = [*node.args[:at], *[None] * (at - len(node.args))]
    rest = {k: v for k, v in node.kwargs.items() if k != "reduction"}
    with graph.inserting_before(node):
        each = _call(graph, values, node.target, *given, 0, **rest)
        summed = _call(graph, node.meta["val"], aten.sum.default, each)
        if reduction == _SUM:
            return summed
        return _call(graph, node.meta["val"], aten.mul.Tensor, summed, 1 / values.numel())


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
        args = [share, *node.args[1:at], *[None] * (at - len(node.args)), _SUM, *node.args[at + 1 :]]
        return _call(graph, node.meta["val"], node.target, *args)


def _negative_log_likelihood(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """the mean of negative log-likelihoods = their sum / the sum of weights, which is one of the targets alone"""
    call: Any = node.args[0] if node.target is operator.getitem else None
    if not isinstance(call, fx.Node) or call.target is not aten.nll_loss_forward.default or call.kwargs:
        return None
    values, target, weight, reduction, ignored = call.args
    given: torch.Tensor = target.meta["val"]  # type: ignore[union-attr]
    if given.ndim != 1 or weight is not None or reduction not in (_MEAN, _SUM):
        return None
    if reduction == _SUM and node.args[1] == 0:
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


def _added_apart(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """addmm(c, a, b) = c + a @ b, where c is itself a matrix: another term, perhaps, of a sum"""
    if node.target is not aten.addmm.default or node.kwargs:
        return None
    value, added = node.meta["val"], node.args[0]
    if not isinstance(added, fx.Node) or added.op == "placeholder" or added.meta["val"].shape != value.shape:
        return None
    with graph.inserting_before(node):
        product = _call(graph, value, aten.mm.default, *node.args[1:])
        return _call(graph, value, aten.add.Tensor, added, product)


ROWS: list[Row] = [_loss_of_each, _added_apart, _mean, _mean_backward, _negative_log_likelihood]
