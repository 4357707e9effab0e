"""Losses of classes: the target is the number of a class, or a probability for each, or a sequence of classes."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import assume, opening, rule
from chainrule.rules.losses import by_number, reduction_of


def _one_hot(target, x):
    """The rows of the identity that `target` picks, with the classes on the class axis of `x`."""
    axis = 0 if x.ndim == 1 else 1
    hot = F.one_hot(target, x.shape[axis])
    return hot.movedim(-1, 1) if x.ndim > 2 else hot


def _classes(out, x, target, weight, ignore_index, reduction):
    """For class indices: the upstream gradient of each term on the class axis, one-hot rows, each term's weight."""
    axis = 0 if x.ndim == 1 else 1
    kept, index = None, target
    if ignore_index != -100 or bool((target == ignore_index).any()):
        kept = target != ignore_index
        index = torch.where(kept, target, 0)
    else:
        assume((target >= 0).all(), x)
    picked = None
    if weight is not None:
        weight.g = None  # autograd defines no gradient for it
        picked = weight[index]
    g = out.g
    if reduction == "mean":
        counted = picked if kept is None else kept if picked is None else picked * kept
        g = g / (target.numel() if counted is None else counted.sum())
    if kept is not None:
        g = torch.where(kept, g, 0)  # not a product: where every target is ignored, g is infinite
    if reduction == "none" or kept is not None:
        g = g.unsqueeze(axis)
    return g, _one_hot(index, x), None if picked is None else picked.unsqueeze(axis)


@rule(F.nll_loss, samples=["r(3, 4), i(4, 3)", "r(3, 4), i(4, 3), reduction='sum'", "r(3, 4), i(4, 3), reduction='none'", "r(3, 4), i(4, 3), p(4)",
                           "r(5, 3), i(3, 5), ignore_index=1", "r(4), i(4)", "r(2, 3, 5), i(3, 2, 5)",
                           "r(2, 3, 5), i(3, 2, 5), p(3), None, 1"],
      note="where every target is ignored the mean is NaN, and its gradient 0")  # fmt: skip
def nll_loss(out, x, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
    reduction = reduction_of(size_average, reduce, reduction)
    g, hot, picked = _classes(out, x, target, weight, ignore_index, reduction)
    x.g = -g * hot if picked is None else -g * picked * hot


@rule(F.cross_entropy, samples=[
    "r(3, 4), i(4, 3)", "r(3, 4), i(4, 3), reduction='sum'", "r(3, 4), i(4, 3), reduction='none'", "r(3, 4), i(4, 3), p(4)",
    "r(5, 3), i(3, 5), ignore_index=1",
    "r(5, 3), i(3, 5), p(3), ignore_index=1, label_smoothing=0.2", "r(4), i(4)", "r(2, 3, 5), i(3, 2, 5)",
    "r(3, 4), i(4, 3), label_smoothing=0.1", "r(3, 4), r(3, 4).softmax(1)", "r(3, 4), r(3, 4).softmax(1), p(4), reduction='sum'",
    "r(3, 4), r(3, 4).softmax(1), label_smoothing=0.1", "r(3, 4), r(3, 4).softmax(1), reduction='none'"],
      note="where every target is ignored the mean is NaN, and its gradient 0")  # fmt: skip
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
    reduction = reduction_of(size_average, reduce, reduction)
    p = x.softmax(axis)
    along = None
    if weight is not None:
        along = weight if x.ndim <= 2 else weight.reshape((1, -1) + (1,) * (x.ndim - 2))
    if target.dtype.is_floating_point:
        g = out.g.unsqueeze(axis) if reduction == "none" else out.g
        if reduction == "mean":
            g = g / (x.shape[0] if x.ndim == 2 else x.numel() / x.shape[axis])
        smooth = target if label_smoothing == 0 else (1 - label_smoothing) * target + label_smoothing / x.shape[axis]
        q = smooth if along is None else smooth * along
        x.g = g * (p * q.sum(axis, keepdim=True) - q)
        down = -g * x.log_softmax(axis) if label_smoothing == 0 else -g * (1 - label_smoothing) * x.log_softmax(axis)
        target.g = down if along is None else down * along
        if weight is not None:
            share = -g * smooth * x.log_softmax(axis)
            weight.g = share if x.ndim <= 2 else share.movedim(1, -1)
        return
    g, hot, picked = _classes(out, x, target, weight, ignore_index, reduction)
    if label_smoothing == 0:
        x.g = g * (p - hot) if picked is None else g * picked * (p - hot)
    elif picked is None:
        q = (1 - label_smoothing) * hot.type_as(x) + label_smoothing / x.shape[axis]
        x.g = g * (p - q)
    else:
        q = (1 - label_smoothing) * picked * hot + label_smoothing / x.shape[axis] * along
        x.g = g * (p * q.sum(axis, keepdim=True) - q)


@opening(F.linear_cross_entropy)
def linear_cross_entropy(
    input,
    linear_weight,
    target,
    *,
    linear_bias=None,
    weight=None,
    reduction="mean",
    ignore_index=None,
    label_smoothing=0.0,
    options=None,
):
    """The options say how the batch is cut to save memory, and change no value."""
    classes, *places, features = linear_weight.shape
    if places:
        linear_weight = linear_weight.reshape(-1, features)
        linear_bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = F.linear(input, linear_weight, linear_bias)
    if places:
        logits = logits.reshape(*input.shape[:-1], classes, *places)
    ignore_index = -100 if ignore_index is None else ignore_index
    return F.cross_entropy(logits, target, weight, None, ignore_index, None, reduction, label_smoothing)


@rule(F.ctc_loss,
      samples=["r(5, 2, 4).log_softmax(2), torch.tensor([[1, 2], [3, 1]]), torch.tensor([5, 4]), torch.tensor([2, 1])",
               "r(5, 2, 4).log_softmax(2), torch.tensor([[1, 2], [3, 1]]), (5, 4), (2, 1), reduction='sum'",
               "r(5, 2, 4).log_softmax(2), torch.tensor([[0, 2], [3, 1]]), (5, 1), (2, 2), 1, 'none', True"],
      note="as in torch, the gradient is that of the scores whose log_softmax was given",
      source="Graves et al. (2006), Connectionist Temporal Classification, equation 16")  # fmt: skip
def ctc_loss(out, log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    batch = log_probs if log_probs.ndim == 3 else log_probs.unsqueeze(1)
    lengths = (targets, input_lengths, target_lengths)
    loss, log_alpha = torch._ctc_loss(batch, *lengths, blank, zero_infinity)
    g = out.g.expand(loss.shape)
    if reduction == "mean":
        symbols = torch.as_tensor(target_lengths, device=loss.device).clamp_min(1)
        g = g / symbols / loss.numel()
    batch_g = torch.ops.aten._ctc_loss_backward(g, batch, *lengths, loss, log_alpha, blank, zero_infinity)
    log_probs.g = batch_g if log_probs.ndim == 3 else batch_g.squeeze(1)


_nn, _aten = torch._C._nn, torch.ops.aten
by_number(F.nll_loss, "input target weight reduction ignore_index", _nn.nll_loss_nd, _aten.nll_loss_nd)
by_number(
    F.cross_entropy,
    "input target weight reduction ignore_index label_smoothing",
    _nn.cross_entropy_loss,
    _aten.cross_entropy_loss,
)
by_number(
    F.ctc_loss,
    "log_probs targets input_lengths target_lengths blank reduction zero_infinity",
    torch.ctc_loss,
    _aten.ctc_loss,
)
