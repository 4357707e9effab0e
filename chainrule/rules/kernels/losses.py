"""Losses. The number of a class is never looked at: what is to be ignored is masked inside the kernels."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import KERNELS, kernel, opening, reached
from chainrule.rules.losses import REDUCTIONS, reduced, reduction_of

aten = torch.ops.aten


def _of_difference(backward, out, x, target, reduction, *how):
    """The step of a loss that depends on the difference of `x` and `target`; stretched ones are left to the book."""
    if x.shape != target.shape:
        return NotImplemented
    x.g = backward(out.g, x, target, REDUCTIONS.index(reduction), *how)
    if reached(target):
        target.g = -x.g
    return None


REDUCED = ["r(3, 4), r(3, 4)", "r(3, 4), r(3, 4), reduction='sum'", "r(3, 4), r(3, 4), reduction='none'"]


@kernel(F.mse_loss, samples=REDUCED)
def mse_loss(out, x, target, size_average=None, reduce=None, reduction="mean"):
    reduction = reduction_of(size_average, reduce, reduction)
    return _of_difference(aten.mse_loss_backward.default, out, x, target, reduction)


@kernel(F.huber_loss, samples=[*REDUCED, "3 * r(3, 4), r(3, 4), delta=0.5"])
def huber_loss(out, x, target, reduction="mean", delta=1.0):
    return _of_difference(aten.huber_loss_backward.default, out, x, target, reduction, delta)


@kernel(F.smooth_l1_loss, samples=[*REDUCED, "r(3, 4), r(3, 4), beta=0.5"])
def smooth_l1_loss(out, x, target, size_average=None, reduce=None, reduction="mean", beta=1.0):
    if beta == 0:
        return NotImplemented
    reduction = reduction_of(size_average, reduce, reduction)
    return _of_difference(aten.smooth_l1_loss_backward.default, out, x, target, reduction, beta)


@kernel(F.binary_cross_entropy, samples=["u(3, 4), u(3, 4)", "u(3, 4), u(3, 4), reduction='sum'",
                                         "u(3, 4), u(3, 4), p(4), reduction='none'"])  # fmt: skip
def binary_cross_entropy(out, x, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    if reached(target) or reached(weight):
        return NotImplemented
    number = REDUCTIONS.index(reduction_of(size_average, reduce, reduction))
    x.g = aten.binary_cross_entropy_backward.default(out.g, x, target, weight, number)
    return None


@kernel(aten.nll_loss_forward.default, samples=["r(3, 4), i(4, 3), None, 1, -100", "r(3, 4), i(4, 3), p(4), 2, 1",
                                                "r(3, 4), i(4, 3), p(4), 0, -100", "r(4), i(4), None, 1, -100"])  # fmt: skip
def nll_loss(out, x, target, weight, reduction, ignore_index):
    loss, total = out
    x.g = aten.nll_loss_backward.default(loss.g, x, target, weight, reduction, ignore_index, total)
    if reached(weight):
        weight.g = None  # autograd defines none


@kernel(aten.nll_loss2d_forward.default, samples=["r(2, 3, 4, 5), i(3, 2, 4, 5), None, 1, -100",
                                                  "r(2, 3, 4, 5), i(3, 2, 4, 5), p(3), 0, 1"])  # fmt: skip
def nll_loss_2d(out, x, target, weight, reduction, ignore_index):
    loss, total = out
    x.g = aten.nll_loss2d_backward.default(loss.g, x, target, weight, reduction, ignore_index, total)
    if reached(weight):
        weight.g = None


def _nll(x, target, weight, ignore_index, number):
    """The loss, and the sum of the weights of the terms that count."""
    if x.ndim <= 2:
        return aten.nll_loss_forward.default(x, target, weight, number, ignore_index)
    x, target = x.contiguous(), target.contiguous()
    if x.ndim == 4:
        return aten.nll_loss2d_forward.default(x, target, weight, number, ignore_index)
    pixels, chosen = x.flatten(2).unsqueeze(2), target.flatten(1).unsqueeze(1)
    loss, total = aten.nll_loss2d_forward.default(pixels, chosen, weight, number, ignore_index)
    return (loss if loss.ndim == 0 else loss.reshape(target.shape)), total


@opening(F.nll_loss, book=KERNELS)
def nll_loss_as_kernel(input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
    number = REDUCTIONS.index(reduction_of(size_average, reduce, reduction))
    return _nll(input, target, weight, ignore_index, number)[0]


@opening(F.cross_entropy, book=KERNELS)
def cross_entropy_as_kernels(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    if input.numel() == 0:
        return NotImplemented
    reduction = reduction_of(size_average, reduce, reduction)
    axis = 0 if input.ndim == 1 else 1
    logp = input.log_softmax(axis)
    if weight is not None and not target.dtype.is_floating_point:
        weight = weight.detach()  # autograd defines no gradient for it
    by_class = weight if weight is None or input.ndim <= 2 else weight.reshape(-1, *[1] * (input.ndim - 2))
    if target.dtype.is_floating_point:
        return _of_probabilities(logp, target, by_class, axis, reduction, label_smoothing)
    loss, total = _nll(logp, target, weight, ignore_index, REDUCTIONS.index(reduction))
    if label_smoothing == 0:
        return loss
    smooth = -(logp if weight is None else logp * by_class).sum(axis)
    smooth = smooth.masked_fill(target == ignore_index, 0)
    if reduction != "none":
        smooth = smooth.sum() / total if reduction == "mean" else smooth.sum()
    return (1 - label_smoothing) * loss + label_smoothing / input.shape[axis] * smooth


def _of_probabilities(logp, target, by_class, axis, reduction, label_smoothing):
    if label_smoothing > 0:
        target = target * (1 - label_smoothing) + label_smoothing / logp.shape[axis]
    terms = logp * target if by_class is None else logp * target * by_class
    return reduced(-terms.sum(axis), reduction)
