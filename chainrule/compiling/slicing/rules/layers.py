"""Lookups, norms, convolutions, pooling and attention, which treat each row alone."""

from __future__ import annotations

import torch
from torch import fx

from chainrule.compiling.slicing.rules.book import along, only, outside, rows_of, rule, value_of
from chainrule.compiling.slicing.shares import PART, NotByRows, Share, Shares, argument

aten = torch.ops.aten


@rule(aten.embedding.default)
def embedding(s: Shares, node: fx.Node) -> Share:
    weight, indices = node.args[:2]
    s.all_of(weight)
    share: Share = s.share(indices)  # type: ignore[arg-type]
    return share


@rule(aten.embedding_dense_backward.default)
def embedding_backward(s: Shares, node: fx.Node) -> Share:
    upstream, indices, _, _, by_frequency = node.args
    rows = rows_of(s, node)
    if by_frequency or rows.axis >= value_of(indices).ndim:
        raise NotByRows
    s.by_rows(node, upstream, rows)
    s.by_rows(node, indices, rows)
    return PART


@rule(aten.native_layer_norm.default)
def layer_norm(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    source, sizes, *weights = node.args[:4]
    rows = outside(s, source, sizes)
    s.all_of(*weights)
    return (rows,) * 3


@rule(aten.native_layer_norm_backward.default)
def layer_norm_backward(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    upstream, source, sizes, mean, scale, *weights = node.args[:7]
    rows = rows_of(s, node)
    if rows.axis >= value_of(source).ndim - len(sizes):  # type: ignore[arg-type]
        raise NotByRows
    for operand in (upstream, source, mean, scale):
        s.by_rows(node, operand, rows)
    s.all_of(*weights)
    return rows, PART, PART


@rule(aten.native_group_norm.default)
def group_norm(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    rows = along(s, node, 0, node.args[0])
    s.all_of(*node.args[1:3])
    s.replace(node, "N", s.length(rows))
    return (rows,) * 3


@rule(aten.native_group_norm_backward.default)
def group_norm_backward(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    rows = along(s, node, 0, *node.args[:4])
    s.all_of(node.args[4])
    s.replace(node, "N", s.length(rows))
    return rows, PART, PART


@rule(aten.convolution.default)
def convolution(s: Shares, node: fx.Node) -> Share:
    rows = along(s, node, 0, node.args[0])
    s.all_of(*node.args[1:3])
    return rows


@rule(aten.convolution_backward.default)
def convolution_backward(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    rows = along(s, node, 0, *node.args[:2])
    s.all_of(node.args[2])
    return rows, PART, PART


@rule(
    aten.max_pool2d_with_indices.default, aten.max_pool2d_with_indices_backward.default, aten.avg_pool2d.default,
    aten.avg_pool2d_backward.default, aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d_backward.default,
    aten.adaptive_max_pool2d.default, aten.adaptive_max_pool2d_backward.default, aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default, aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default,
)  # fmt: skip
def each_image(s: Shares, node: fx.Node) -> Share | tuple[Share, ...]:
    """Kernels that look at one image at a time; the first axis of one alone is that of its channels."""
    if any(value_of(n).ndim < 4 for n in node.all_input_nodes):
        raise NotByRows
    rows = along(s, node, 0, *node.all_input_nodes)
    return (rows,) * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rows


@rule(aten.constant_pad_nd.default)
def pad(s: Shares, node: fx.Node) -> Share:
    source, rows = only(s, node)
    if rows.axis >= value_of(source).ndim - len(node.args[1]) // 2:  # type: ignore[arg-type]
        raise NotByRows
    return rows


@rule(
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
)
def attention(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    """Each sequence attends to itself; a mask may be common to all."""
    if argument(node, "dropout_p"):
        raise NotByRows
    mask = argument(node, "attn_mask")
    operands = [n for n in node.all_input_nodes if n is not mask]
    rows = along(s, node, 0, *operands)
    if isinstance(mask, fx.Node):
        if value_of(mask).ndim == 4 and value_of(mask).shape[0] != 1:
            s.by_rows(node, mask, rows)
        else:
            s.all_of(mask)
    return (rows,) * len(node.meta["val"])
