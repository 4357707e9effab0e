"""Losses. With reduction "mean" the gradient is divided by the number of terms, with "none" each term has its own."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import assume, rule

REDUCED = ["r(3, 4), r(3, 4)", "r(3, 4), r(3, 4), reduction='sum'", "r(3, 4), r(3, 4), reduction='none'"]


def _averaged(g, x, reduction):
    return g / x.numel() if reduction == "mean" else g


@rule(F.mse_loss, samples=REDUCED)
def mse_loss(out, x, target, size_average=None, reduce=None, reduction="mean"):
    x.g = _averaged(out.g * 2 * (x - target), x, reduction)
    target.g = _averaged(out.g * 2 * (target - x), x, reduction)


@rule(F.l1_loss, samples=REDUCED, note="where both are equal the gradient is 0")
def l1_loss(out, x, target, size_average=None, reduce=None, reduction="mean"):
    x.g = _averaged(out.g * (x - target).sign(), x, reduction)
    target.g = _averaged(out.g * (target - x).sign(), x, reduction)


def _weighted(g, weight):
    if weight is None:
        return g
    weight.g = None  # autograd defines no gradient for it
    return g * weight


@rule(
    F.binary_cross_entropy,
    samples=["u(3, 4), u(3, 4)", "u(3, 4), u(3, 4), reduction='sum'", "u(3, 4), u(3, 4), p(4), reduction='none'"],
)
def binary_cross_entropy(out, x, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    g = _weighted(out.g, weight)
    x.g = _averaged(g * (x - target) / (x * (1 - x)).clamp_min(1e-12), x, reduction)
    target.g = _averaged(g * ((1 - x).log().clamp_min(-100) - x.log().clamp_min(-100)), x, reduction)


@rule(F.binary_cross_entropy_with_logits,
      samples=["r(3, 4), u(3, 4)", "r(3, 4), u(3, 4), reduction='sum'", "r(3, 4), u(3, 4), p(4), reduction='none'",
               "r(3, 4), u(3, 4), pos_weight=p(4)"])  # fmt: skip
def binary_cross_entropy_with_logits(
    out, x, target, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None
):
    g = _weighted(out.g, weight)
    if pos_weight is None:
        x.g = _averaged(g * (x.sigmoid() - target), x, reduction)
        target.g = _averaged(-g * x, x, reduction)
    else:
        pos_weight.g = None
        larger = 1 + (pos_weight - 1) * target
        x.g = _averaged(g * (larger * x.sigmoid() - pos_weight * target), x, reduction)
        target.g = _averaged(g * ((pos_weight - 1) * F.softplus(-x) - x), x, reduction)


def _one_hot(target, x):
    """The rows of the identity that `target` picks, with the classes on the class axis of `x`."""
    axis = 0 if x.ndim == 1 else 1
    hot = F.one_hot(target, x.shape[axis])
    return hot.movedim(-1, 1) if x.ndim > 2 else hot


def _classes(out, x, target, weight, ignore_index, reduction):
    """For class indices: the upstream gradient of each term on the class axis, and one-hot rows."""
    axis = 0 if x.ndim == 1 else 1
    kept = None
    if ignore_index != -100 or bool((target == ignore_index).any()):
        kept = target != ignore_index
        hot = _one_hot(torch.where(kept, target, 0), x)
    else:
        assume((target >= 0).all(), x)
        hot = _one_hot(target, x)
    factor = None if kept is None else kept
    if weight is not None:
        weight.g = None  # autograd defines no gradient for it
        picked = weight[target if kept is None else torch.where(kept, target, 0)]
        factor = picked if kept is None else picked * kept
    g = out.g
    if reduction == "mean":
        g = g / (target.numel() if factor is None else factor.sum())
    elif reduction == "none":
        g = g.unsqueeze(axis)
    return g, hot, kept, factor, axis


@rule(F.nll_loss, samples=["r(3, 4), i(4, 3)", "r(3, 4), i(4, 3), reduction='sum'", "r(3, 4), i(4, 3), reduction='none'", "r(3, 4), i(4, 3), p(4)",
                           "r(5, 3), i(3, 5), ignore_index=1", "r(4), i(4)", "r(2, 3, 5), i(3, 2, 5)"])  # fmt: skip
def nll_loss(out, x, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
    g, hot, _, factor, axis = _classes(out, x, target, weight, ignore_index, reduction)
    x.g = -g * hot if factor is None else -g * factor.unsqueeze(axis) * hot


@rule(F.cross_entropy, samples=[
    "r(3, 4), i(4, 3)", "r(3, 4), i(4, 3), reduction='sum'", "r(3, 4), i(4, 3), reduction='none'", "r(3, 4), i(4, 3), p(4)",
    "r(5, 3), i(3, 5), ignore_index=1", "r(5, 3), i(3, 5), p(3), ignore_index=1, label_smoothing=0.2", "r(4), i(4)", "r(2, 3, 5), i(3, 2, 5)",
    "r(3, 4), i(4, 3), label_smoothing=0.1", "r(3, 4), r(3, 4).softmax(1)", "r(3, 4), r(3, 4).softmax(1), p(4), reduction='sum'",
    "r(3, 4), r(3, 4).softmax(1), label_smoothing=0.1", "r(3, 4), r(3, 4).softmax(1), reduction='none'"])  # fmt: skip
def cross_entropy(
    out,
    x,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    axis = 0 if x.ndim == 1 else 1
    p = x.softmax(axis)
    along = None
    if weight is not None:
        along = weight if x.ndim <= 2 else weight.reshape((1, -1) + (1,) * (x.ndim - 2))
    if target.dtype.is_floating_point:
        g = out.g.unsqueeze(axis) if reduction == "none" else out.g
        if reduction == "mean":
            g = g / (x.shape[0] if x.ndim == 2 else x.numel() / x.shape[axis])
        q = target if label_smoothing == 0 else (1 - label_smoothing) * target + label_smoothing / x.shape[axis]
        q = q if along is None else q * along
        x.g = g * (p * q.sum(axis, keepdim=True) - q)
        down = -g * x.log_softmax(axis) if label_smoothing == 0 else -g * (1 - label_smoothing) * x.log_softmax(axis)
        target.g = down if along is None else down * along
        if weight is not None:
            smooth = (
                target if label_smoothing == 0 else (1 - label_smoothing) * target + label_smoothing / x.shape[axis]
            )
            share = -g * smooth * x.log_softmax(axis)
            weight.g = share if x.ndim <= 2 else share.movedim(1, -1)
        return
    g, hot, kept, factor, _ = _classes(out, x, target, weight, ignore_index, reduction)
    if label_smoothing == 0:
        x.g = g * (p - hot) if factor is None else g * factor.unsqueeze(axis) * (p - hot)
        return
    hot = hot.type_as(x)
    q = (1 - label_smoothing) * hot + label_smoothing / x.shape[axis]
    if along is not None:
        q = (1 - label_smoothing) * factor.unsqueeze(axis) * hot + label_smoothing / x.shape[axis] * along
        q = q if kept is None else q * kept.unsqueeze(axis)
        x.g = g * (p * q.sum(axis, keepdim=True) - q)
    else:
        x.g = g * (p - q) if kept is None else g * kept.unsqueeze(axis) * (p - q)
