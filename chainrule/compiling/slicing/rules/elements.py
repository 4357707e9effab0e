"""What is computed element by element, and losses of each element."""

from __future__ import annotations

import torch
from torch import fx

from chainrule.compiling.slicing.rules.book import along, rule, value_of
from chainrule.compiling.slicing.shares import PART, NotByRows, Rows, Share, Shares, argument

aten = torch.ops.aten


@rule(
    aten._to_copy.default, aten.hardtanh_backward.default, aten.elu_backward.default, aten.leaky_relu_backward.default,
    aten.softplus_backward.default,
)  # fmt: skip
def elementwise(s: Shares, node: fx.Node) -> Share:
    """Axes meet from the right, as broadcasting has them."""
    found = {(value_of(n).ndim - r.axis, r.each) for n, r in s.operands(node) if isinstance(r, Rows)}
    if len(found) != 1:
        raise NotByRows
    ((from_right, each),) = found
    for operand, share in s.operands(node):
        shape = value_of(operand).shape
        if not isinstance(share, Rows) and len(shape) >= from_right and shape[-from_right] != 1:
            s.by_rows(node, operand, Rows(len(shape) - from_right, each))
    return Rows(value_of(node).ndim - from_right, each)


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
    along(s, node, 0, log_probabilities, target)
    s.all_of(weight)
    if value_of(log_probabilities).ndim != 2 or argument(node, "reduction") != 2:
        raise NotByRows
    return PART, PART


@rule(aten.nll_loss_backward.default)
def nll_loss_backward(s: Shares, node: fx.Node) -> Share:
    """The upstream gradient is a number, and the sum of the weights is known."""
    upstream, log_probabilities, target, weight, reduction, _, total = node.args
    rows = along(s, node, 0, log_probabilities, target)
    s.all_of(upstream, weight, total)
    if value_of(log_probabilities).ndim != 2 or reduction == 0:
        raise NotByRows
    return rows
