"""How operations treat the rows of a batch: for each, which share its result has, and what a slice gives it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import fx

from chainrule.compiling.slicing.shares import (
    PART,
    NotByRows,
    Rows,
    Rule,
    Share,
    Shares,
    argument,
    axes,
)

aten = torch.ops.aten

RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of operations."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return enter


def rule_of(target: Any) -> Rule | None:
    """The rule of an operation; all that are elementwise have one in common."""
    if target in RULES:
        return RULES[target]
    tags = getattr(target, "tags", ())
    if torch.Tag.pointwise not in tags or torch.Tag.nondeterministic_seeded in tags:
        return None
    return elementwise if len(target._schema.returns) == 1 else None


def _value(node: Any) -> torch.Tensor:
    value: torch.Tensor = node.meta["val"]
    return value


# -- element by element ------------------------------------------------------------------------------


@rule(
    aten._to_copy.default, aten.hardtanh_backward.default, aten.elu_backward.default, aten.leaky_relu_backward.default,
    aten.softplus_backward.default,
)  # fmt: skip
def elementwise(s: Shares, node: fx.Node) -> Share:
    """Axes meet from the right, as broadcasting has them."""
    found = {(_value(n).ndim - r.axis, r.each) for n, r in s.operands(node) if isinstance(r, Rows)}
    if len(found) != 1:
        raise NotByRows
    ((from_right, each),) = found
    for operand, share in s.operands(node):
        shape = _value(operand).shape
        if not isinstance(share, Rows) and len(shape) >= from_right and shape[-from_right] != 1:
            s.by_rows(node, operand, Rows(len(shape) - from_right, each))
    return Rows(_value(node).ndim - from_right, each)


@rule(
    aten.mse_loss.default, aten.huber_loss.default, aten.smooth_l1_loss.default, aten.binary_cross_entropy.default,
    aten.mse_loss_backward.default, aten.huber_loss_backward.default, aten.smooth_l1_loss_backward.default,
    aten.binary_cross_entropy_backward.default, aten.binary_cross_entropy_with_logits.default,
)  # fmt: skip
def loss_of_each(s: Shares, node: fx.Node) -> Share | tuple[Share, ...]:
    """A loss without a mean, and the backward pass of one: a mean is written apart before this."""
    reduction = argument(node, "reduction")
    if reduction == 1 or (reduction == 2 and "backward" not in str(node.target)):
        raise NotByRows
    return elementwise(s, node)


@rule(aten.nll_loss_forward.default)
def nll_loss(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    """Rows of log probabilities; the sum, and the sum of the weights."""
    log_probabilities, target, weight = node.args[:3]
    _along(s, node, 0, log_probabilities, target)
    s.all_of(weight)
    if _value(log_probabilities).ndim != 2 or argument(node, "reduction") != 2:
        raise NotByRows
    return PART, PART


@rule(aten.nll_loss_backward.default)
def nll_loss_backward(s: Shares, node: fx.Node) -> Share:
    """The upstream gradient is a number, and the sum of the weights is known."""
    upstream, log_probabilities, target, weight, reduction, _, total = node.args
    rows = _along(s, node, 0, log_probabilities, target)
    s.all_of(upstream, weight, total)
    if _value(log_probabilities).ndim != 2 or reduction == 0:
        raise NotByRows
    return rows


# -- shapes --------------------------------------------------------------------------------------


@rule(aten.view.default)
def view(s: Shares, node: fx.Node) -> Share:
    """The axis of rows joins those after it, or is parted from them; what stands before stays."""
    source, rows = _only(s, node)
    old, new = _value(source).shape, _value(node).shape
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
    source, rows = _only(s, node)
    shape = list(_value(node).shape)
    result = Rows(rows.axis + len(shape) - _value(source).ndim, rows.each)
    shape[result.axis] = s.length(result)
    s.replace(node, "size", shape)
    return result


@rule(aten.permute.default)
def permute(s: Shares, node: fx.Node) -> Share:
    source, rows = _only(s, node)
    order = [a % _value(source).ndim for a in argument(node, "dims")]
    return Rows(order.index(rows.axis), rows.each)


@rule(aten.transpose.int, aten.t.default)
def transpose(s: Shares, node: fx.Node) -> Share:
    source, rows = _only(s, node)
    ndim = _value(source).ndim
    swapped: Any = (0, ndim - 1) if node.target is aten.t.default else node.args[1:]
    first, second = (a % ndim for a in swapped)
    return Rows({first: second, second: first}.get(rows.axis, rows.axis), rows.each)


@rule(aten.unsqueeze.default)
def unsqueeze(s: Shares, node: fx.Node) -> Share:
    _, rows = _only(s, node)
    at = argument(node, "dim") % _value(node).ndim
    return Rows(rows.axis + (at <= rows.axis), rows.each)


@rule(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.select.int)
def axes_that_go(s: Shares, node: fx.Node) -> Share:
    """One axis is selected, or those of length 1 go."""
    source, rows = _only(s, node)
    shape = _value(source).shape
    named = set(range(len(shape))) if node.target is aten.squeeze.default else axes(node, len(shape))
    gone = named if node.target is aten.select.int else {a for a in named if shape[a] == 1}
    if rows.axis in gone:
        raise NotByRows
    return Rows(rows.axis - sum(a < rows.axis for a in gone), rows.each)


@rule(aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
def along_another(s: Shares, node: fx.Node) -> Share | tuple[Share, ...]:
    """Parts of another axis than that of the rows."""
    source, rows = _only(s, node)
    (axis,) = axes(node, _value(source).ndim)
    if axis == rows.axis:
        raise NotByRows
    if node.target is aten.unbind.int:
        rows = Rows(rows.axis - (axis < rows.axis), rows.each)
    return (rows,) * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rows


@rule(aten.cat.default)
def cat(s: Shares, node: fx.Node) -> Share:
    rows = _rows(s, node)
    if rows.axis in axes(node, _value(node).ndim):
        raise NotByRows
    for operand, _ in s.operands(node):
        s.by_rows(node, operand, rows)
    return rows


@rule(aten.stack.default)
def stack(s: Shares, node: fx.Node) -> Share:
    rows, at = _rows(s, node), argument(node, "dim") % _value(node).ndim
    for operand, _ in s.operands(node):
        s.by_rows(node, operand, rows)
    return Rows(rows.axis + (at <= rows.axis), rows.each)


@rule(aten.flip.default, aten.roll.default)
def turned(s: Shares, node: fx.Node) -> Share:
    source, rows = _only(s, node)
    if rows.axis in axes(node, _value(source).ndim, "dims"):
        raise NotByRows
    return rows


@rule(aten.tril.default, aten.triu.default)
def triangle(s: Shares, node: fx.Node) -> Share:
    source, rows = _only(s, node)
    if rows.axis >= _value(source).ndim - 2:
        raise NotByRows
    return rows


# -- sums and other reductions -----------------------------------------------------------------------


@rule(aten.sum.default)
def sum_of_all(s: Shares, node: fx.Node) -> Share:
    return PART


@rule(aten.sum.dim_IntList)
def sum_of_axes(s: Shares, node: fx.Node) -> Share:
    source, rows = _only(s, node)
    return PART if rows.axis in axes(node, _value(source).ndim) else _reduced(s, node)


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
    source, rows = _only(s, node)
    gone = axes(node, _value(source).ndim)
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
    rows = _rows(s, node)
    first: Any = node.args[0]
    if rows.axis in axes(node, _value(first).ndim):
        raise NotByRows
    for operand, _ in s.operands(node):
        s.by_rows(node, operand, rows)
    return (rows,) * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rows


# -- products --------------------------------------------------------------------------------------

# Of a product's operands: the axes of the left that are those of the batch, kept and summed over; the same of the right.
_AXES: dict[Any, tuple[str, str]] = {
    aten.mm.default: ("ik", "kj"), aten.bmm.default: ("bik", "bkj"), aten.mv.default: ("ik", "k"),
    aten.dot.default: ("k", "k"), aten.addmm.default: ("ik", "kj"), aten.baddbmm.default: ("bik", "bkj"),
    aten.addmv.default: ("ik", "k"),
}  # fmt: skip


@rule(*_AXES)
def product(s: Shares, node: fx.Node) -> Share:
    """Rows of an axis that stays are rows of the result; over rows of the other one is summed."""
    letters = _AXES[node.target]
    *bias, left, right = (a for a in node.args if isinstance(a, fx.Node))
    shares = [s.share(left), s.share(right)]
    found = {(word[r.axis], r.each) for word, r in zip(letters, shares) if isinstance(r, Rows)}
    if len(found) != 1:
        raise NotByRows
    ((letter, each),) = found
    for operand, word in zip((left, right), letters):
        if letter in word:
            s.by_rows(node, operand, Rows(word.index(letter), each))
    kept = "".join(dict.fromkeys(c for word in letters for c in word if c != "k"))
    if letter == "k":
        if bias:
            raise NotByRows
        return PART
    result = Rows(kept.index(letter), each)
    for value in bias:
        from_right, shape = len(kept) - result.axis, _value(value).shape
        if len(shape) >= from_right and shape[-from_right] != 1:
            s.by_rows(node, value, Rows(len(shape) - from_right, each))
        else:
            s.all_of(value)
    return result


# -- layers ----------------------------------------------------------------------------------------


@rule(aten.embedding.default)
def embedding(s: Shares, node: fx.Node) -> Share:
    weight, indices = node.args[:2]
    s.all_of(weight)
    share: Share = s.share(indices)  # type: ignore[arg-type]
    return share


@rule(aten.embedding_dense_backward.default)
def embedding_backward(s: Shares, node: fx.Node) -> Share:
    upstream, indices, _, _, by_frequency = node.args
    rows = _rows(s, node)
    if by_frequency or rows.axis >= _value(indices).ndim:
        raise NotByRows
    s.by_rows(node, upstream, rows)
    s.by_rows(node, indices, rows)
    return PART


@rule(aten.native_layer_norm.default)
def layer_norm(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    source, sizes, *weights = node.args[:4]
    rows = _outside(s, source, sizes)
    s.all_of(*weights)
    return (rows,) * 3


@rule(aten.native_layer_norm_backward.default)
def layer_norm_backward(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    upstream, source, sizes, mean, scale, *weights = node.args[:7]
    rows = _rows(s, node)
    if rows.axis >= _value(source).ndim - len(sizes):  # type: ignore[arg-type]
        raise NotByRows
    for operand in (upstream, source, mean, scale):
        s.by_rows(node, operand, rows)
    s.all_of(*weights)
    return rows, PART, PART


@rule(aten.native_group_norm.default)
def group_norm(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    rows = _along(s, node, 0, node.args[0])
    s.all_of(*node.args[1:3])
    s.replace(node, "N", s.length(rows))
    return (rows,) * 3


@rule(aten.native_group_norm_backward.default)
def group_norm_backward(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    rows = _along(s, node, 0, *node.args[:4])
    s.all_of(node.args[4])
    s.replace(node, "N", s.length(rows))
    return rows, PART, PART


@rule(aten.convolution.default)
def convolution(s: Shares, node: fx.Node) -> Share:
    rows = _along(s, node, 0, node.args[0])
    s.all_of(*node.args[1:3])
    return rows


@rule(aten.convolution_backward.default)
def convolution_backward(s: Shares, node: fx.Node) -> tuple[Share, ...]:
    rows = _along(s, node, 0, *node.args[:2])
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
    if any(_value(n).ndim < 4 for n in node.all_input_nodes):
        raise NotByRows
    rows = _along(s, node, 0, *node.all_input_nodes)
    return (rows,) * len(node.meta["val"]) if isinstance(node.meta["val"], tuple | list) else rows


@rule(aten.constant_pad_nd.default)
def pad(s: Shares, node: fx.Node) -> Share:
    source, rows = _only(s, node)
    if rows.axis >= _value(source).ndim - len(node.args[1]) // 2:  # type: ignore[arg-type]
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
    rows = _along(s, node, 0, *operands)
    if isinstance(mask, fx.Node):
        if _value(mask).ndim == 4 and _value(mask).shape[0] != 1:
            s.by_rows(node, mask, rows)
        else:
            s.all_of(mask)
    return (rows,) * len(node.meta["val"])


# -- shares of operands ------------------------------------------------------------------------------


def _rows(s: Shares, node: fx.Node) -> Rows:
    """Of the first operand that is there by rows."""
    return next(r for _, r in s.operands(node) if isinstance(r, Rows))


def _only(s: Shares, node: fx.Node) -> tuple[fx.Node, Rows]:
    """The one operand, which is there by rows."""
    ((operand, rows),) = s.operands(node)
    return operand, rows


def _along(s: Shares, node: fx.Node, axis: int, *operands: Any) -> Rows:
    """The rows of operands that all have them along `axis`."""
    rows = _rows(s, node)
    if rows.axis != axis:
        raise NotByRows
    for operand in operands:
        s.by_rows(node, operand, rows)
    return rows


def _outside(s: Shares, source: Any, sizes: Any) -> Rows:
    """The rows of a value, where they are not along its last axes, as many as `sizes`."""
    rows = s.share(source)
    if not isinstance(rows, Rows) or rows.axis >= _value(source).ndim - len(sizes):
        raise NotByRows
    return rows
