"""Identities between aten operations that make the graph shorter. Each row: what is found, what stands in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.graph.merging import clean

aten = torch.ops.aten

Row = Callable[[fx.Graph, fx.Node], fx.Node | None]


def shorten(lowered: Lowered, rows: Sequence[Row] | None = None) -> None:
    """Apply every row wherever it fits."""
    graph, replaced = lowered.graph, {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        for row in ROWS if rows is None else rows:
            shorter = row(graph, node)
            if shorter is not None:
                if shorter.op == "call_function" and "val" not in shorter.meta:
                    shorter.meta = {**node.meta, **shorter.meta}
                node.replace_all_uses_with(shorter)
                replaced[node] = shorter
                break
    clean(lowered, replaced)


# Kernels that go through memory in order, so that the upstream gradient must lie as the input does.
_AS_THE_INPUT = {aten.native_group_norm_backward.default}

# Kernels whose result lies as their input does, and in rows where the graph was traced.
_IN_ROWS = {aten.roll.default}


def lay_out(lowered: Lowered) -> None:
    """Copy what lies otherwise than a kernel takes for granted: simplifying may have moved an expansion behind the rule
    that asked for it."""
    for node in lowered.graph.nodes:
        if node.target not in _AS_THE_INPUT | _IN_ROWS:
            continue
        source = node.args[0]
        like = (node.args[1] if node.target in _AS_THE_INPUT else node).meta["val"]
        given = source.meta["val"]
        if like.stride() == given.stride():
            continue
        form = torch.contiguous_format if like.is_contiguous() else torch.channels_last
        with lowered.graph.inserting_before(node):
            copy = lowered.graph.call_function(aten.clone.default, (source,), {"memory_format": form})
        copy.meta["val"] = given.clone(memory_format=form)
        if node in lowered.backward:
            lowered.backward.add(copy)
        node.replace_input_with(source, copy)


def _of(value: Any, *targets: Any) -> bool:
    """A call of one of `targets`, read once."""
    return isinstance(value, fx.Node) and value.target in targets and len(value.users) == 1


def _product_and_bias(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """a @ b + bias = addmm(bias, a, b)"""
    if node.target is not aten.add.Tensor or node.kwargs:
        return None
    for product, bias in (node.args, node.args[::-1]):
        if not _of(product, aten.mm.default) or not isinstance(bias, fx.Node):
            continue
        wanted, given = node.meta["val"], bias.meta["val"]
        if given.shape == wanted.shape[-given.ndim :] and given.ndim in (1, 2) and given.dtype == wanted.dtype:
            with graph.inserting_before(node):
                return graph.call_function(aten.addmm.default, (bias, *product.args))  # type: ignore[union-attr]
    return None


_SCALED = {aten.mul.Tensor: 1, aten.div.Tensor: -1, aten.mul.Scalar: 1, aten.div.Scalar: -1}


def _factor(node: Any) -> tuple[Any, float] | None:
    """(x, c) where `node` is c x with a number c."""
    if not isinstance(node, fx.Node) or node.target not in _SCALED or node.kwargs or len(node.args) != 2:
        return None
    x, number = node.args
    if isinstance(x, int | float) and _SCALED[node.target] == 1:
        x, number = number, x
    if not isinstance(number, int | float) or isinstance(number, bool) or not isinstance(x, fx.Node) or not number:
        return None
    if x.meta["val"].dtype != node.meta["val"].dtype or not x.meta["val"].is_floating_point():
        return None
    return x, float(number) if _SCALED[node.target] == 1 else 1 / number


def _numbers(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """(x c) d = x (c d)"""
    outer = _factor(node)
    if outer is None or len(outer[0].users) != 1:
        return None
    inner = _factor(outer[0])
    if inner is None:
        return None
    with graph.inserting_before(node):
        return graph.call_function(aten.mul.Tensor, (inner[0], inner[1] * outer[1]))


_FILLED: dict[Any, Callable[[Any], Any]] = {
    aten.zeros_like.default: lambda args: 0,
    aten.ones_like.default: lambda args: 1,
    aten.full_like.default: lambda args: args[1],
    aten.new_zeros.default: lambda args: 0,
    aten.new_ones.default: lambda args: 1,
    aten.new_full.default: lambda args: args[2],
}


def _of_one_number(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """full_like(x, c) = a constant: only the shape of x is read"""
    value: Any = node.meta.get("val")
    if node.target not in _FILLED or not value.is_contiguous():
        return None
    with graph.inserting_before(node):
        size, number = list(value.shape), _FILLED[node.target](node.args)
        return graph.call_function(aten.full.default, (size, number), {"dtype": value.dtype, "device": value.device})


def _view_of_a_view(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """x.view(a).view(b) = x.view(b); the same for x itself, where it has that shape"""
    if node.target is not aten.view.default:
        return None
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    if source.target is not aten.view.default:
        return None
    base: fx.Node = source.args[0]  # type: ignore[assignment]
    wanted, given = node.meta["val"], base.meta["val"]
    if wanted.shape == given.shape and wanted.stride() == given.stride():
        return base
    if not given.is_contiguous():
        return None
    with graph.inserting_before(node):
        return graph.call_function(aten.view.default, (base, list(wanted.shape)))


_LOSSES = (aten.mse_loss.default, aten.huber_loss.default, aten.smooth_l1_loss.default)
_MEAN, _SUM = 1, 2


def _reduced_apart(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """the mean of a loss = mean(loss of each element): torch's result would keep the memory of all of them"""
    reduction = node.args[2] if len(node.args) > 2 else node.kwargs.get("reduction", _MEAN)
    if node.target not in _LOSSES or reduction not in (_MEAN, _SUM):
        return None
    values: list[Any] = [a.meta["val"] for a in node.args[:2] if isinstance(a, fx.Node)]
    if values[0].shape != values[-1].shape:
        return None
    with graph.inserting_before(node):
        each = graph.call_function(
            node.target, (*node.args[:2], 0, *node.args[3:]), {k: v for k, v in node.kwargs.items() if k != "reduction"}
        )
        each.meta["val"] = values[0]
        return graph.call_function(aten.mean.default if reduction == _MEAN else aten.sum.default, (each,))


ROWS: list[Row] = [_product_and_bias, _numbers, _of_one_number, _view_of_a_view, _reduced_apart]
