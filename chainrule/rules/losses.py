"""Losses between numbers. With reduction "mean" the gradient is divided by the number of terms, with "none" each term
has its own."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.nn import _reduction

from chainrule.rules.book import opening, rule

REDUCTIONS = ("none", "mean", "sum")  # by the numbers that torch's C++ gives them
REDUCED = ["r(3, 4), r(3, 4)", "r(3, 4), r(3, 4), reduction='sum'", "r(3, 4), r(3, 4), reduction='none'"]


def reduction_of(size_average, reduce, reduction):
    """The reduction, where the older arguments `size_average` and `reduce` may name it."""
    if size_average is None and reduce is None:
        return reduction
    return _reduction.legacy_get_string(size_average, reduce, emit_warning=False)


def averaged(g, terms, reduction):
    """The gradient of each of `terms`, before they were reduced."""
    return g / terms.numel() if reduction == "mean" else g


def _upstream(out, x, target, reduction):
    """The gradient of each term, in the shape of the terms where one of the two is stretched."""
    if x.shape == target.shape:
        return averaged(out.g, x, reduction)
    terms = x - target
    return averaged(out.g, terms, reduction).expand(terms.shape)


def reduced(terms, reduction):
    return terms.mean() if reduction == "mean" else terms.sum() if reduction == "sum" else terms


def by_number(function: Any, parameters: str, *spellings: Any) -> None:
    """Open torch's C++ `spellings` of a loss, whose reduction is a number, as the Python `function`."""

    @opening(*spellings)
    def spelled(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(parameters.split(), args, strict=False)) | kwargs
        return function(**given | {"reduction": REDUCTIONS[given.get("reduction", 1)]})


@rule(F.mse_loss, samples=REDUCED)
def mse_loss(out, x, target, size_average=None, reduce=None, reduction="mean"):
    g = _upstream(out, x, target, reduction_of(size_average, reduce, reduction))
    x.g = g * 2 * (x - target)
    target.g = g * 2 * (target - x)


@opening(F.mse_loss)
def weighted_mse_loss(input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    if weight is None:
        return NotImplemented
    terms = (input - target) ** 2 * weight
    reduction = reduction_of(size_average, reduce, reduction)
    return terms.sum() / weight.sum() if reduction == "mean" else reduced(terms, reduction)


@rule(F.l1_loss, samples=REDUCED, note="where both are equal the gradient is 0")
def l1_loss(out, x, target, size_average=None, reduce=None, reduction="mean"):
    g = _upstream(out, x, target, reduction_of(size_average, reduce, reduction))
    x.g = g * (x - target).sign()
    target.g = g * (target - x).sign()


@rule(F.huber_loss, samples=[*REDUCED, "3 * r(3, 4), r(3, 4), delta=0.5"],
      source="Huber (1964), Robust Estimation of a Location Parameter")  # fmt: skip
def huber_loss(out, x, target, reduction="mean", delta=1.0):
    g = _upstream(out, x, target, reduction)
    x.g = g * (x - target).clamp(-delta, delta)
    target.g = g * (target - x).clamp(-delta, delta)


@opening(F.huber_loss)
def weighted_huber_loss(input, target, reduction="mean", delta=1.0, weight=None):
    if weight is None:
        return NotImplemented
    return reduced(F.huber_loss(input, target, reduction="none", delta=delta) * weight, reduction)


@rule(F.smooth_l1_loss, samples=[*REDUCED, "r(3, 4), r(3, 4), beta=0.5", "r(3, 4), r(3, 4), beta=0.0"],
      note="with beta=0 it is the l1 loss")  # fmt: skip
def smooth_l1_loss(out, x, target, size_average=None, reduce=None, reduction="mean", beta=1.0):
    if beta == 0:
        l1_loss(out, x, target, size_average, reduce, reduction)
        return
    g = _upstream(out, x, target, reduction_of(size_average, reduce, reduction))
    x.g = g * ((x - target) / beta).clamp(-1, 1)
    target.g = g * ((target - x) / beta).clamp(-1, 1)


def _weighted(g, weight):
    if weight is None:
        return g
    weight.g = None  # autograd defines no gradient for it
    return g * weight


@rule(
    F.binary_cross_entropy,
    samples=["u(3, 4), u(3, 4)", "u(3, 4), u(3, 4), reduction='sum'", "u(3, 4), u(3, 4), p(4), reduction='none'"],
    note="where the probability is 0 or 1 the gradient of the target is infinite, that of the probability large",
)
def binary_cross_entropy(out, x, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    g = averaged(_weighted(out.g, weight), x, reduction_of(size_average, reduce, reduction))
    x.g = g * (x - target) / (x * (1 - x)).clamp_min(1e-12)
    target.g = g * ((-x).log1p() - x.log())


@rule(F.binary_cross_entropy_with_logits,
      samples=["r(3, 4), u(3, 4)", "r(3, 4), u(3, 4), reduction='sum'", "r(3, 4), u(3, 4), p(4), reduction='none'",
               "r(3, 4), u(3, 4), pos_weight=p(4)"])  # fmt: skip
def binary_cross_entropy_with_logits(
    out, x, target, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None
):
    g = averaged(_weighted(out.g, weight), x, reduction_of(size_average, reduce, reduction))
    if pos_weight is None:
        x.g = g * (x.sigmoid() - target)
        target.g = -g * x
    else:
        pos_weight.g = None
        larger = 1 + (pos_weight - 1) * target
        x.g = g * (larger * x.sigmoid() - pos_weight * target)
        target.g = g * ((pos_weight - 1) * F.softplus(-x) - x)


@rule(F.kl_div, samples=["r(3, 4), u(3, 4), reduction='batchmean'", "r(3, 4), u(3, 4), reduction='sum'", "r(3, 4), r(3, 4), reduction='none', log_target=True"],
      note="where the target is 0, its gradient is NaN")  # fmt: skip
def kl_div(out, x, target, size_average=None, reduce=None, reduction="mean", log_target=False):
    reduction = reduction_of(size_average, reduce, reduction)
    g = _upstream(out, x, target, reduction)
    if reduction == "batchmean" and x.ndim:
        g = g / x.shape[0]
    if log_target:
        p = target.exp()
        x.g = -g * p
        target.g = g * p * (target - x + 1)
    else:
        x.g = -g * target
        target.g = g * (torch.xlogy(target, target) / target + 1 - x)


@rule(F.poisson_nll_loss, samples=[*REDUCED, "r(3, 4), 3 * p(3, 4), True, True", "p(3, 4), 3 * p(3, 4), log_input=False", "p(3, 4), 3 * p(3, 4), False, True, eps=0.1"],
      note="Stirling's approximation is for targets above 1 alone")  # fmt: skip
def poisson_nll_loss(
    out, x, target, log_input=True, full=False, size_average=None, eps=1e-08, reduce=None, reduction="mean"
):
    g = _upstream(out, x, target, reduction_of(size_average, reduce, reduction))
    log_rate = x if log_input else (x + eps).log()
    x.g = g * (x.exp() - target) if log_input else g * (1 - target / (x + eps))
    target.g = -g * log_rate
    if full:
        target.g = torch.where(target > 1, g * (target.log() + 1 / (2 * target) - log_rate), target.g)


@rule(F.gaussian_nll_loss, samples=["r(3, 4), r(3, 4), p(3, 4)", "r(3, 4), r(3, 4), p(3, 1), True, reduction='sum'", "r(3, 4), r(3, 4), p(3), reduction='none'",
                                    "r(3, 4), r(3, 4), 2.0"],
      note="a variance below eps is taken as eps, and its gradient is that of eps",
      source="Nix and Weigend (1994), Estimating the Mean and Variance of the Target Probability Distribution")  # fmt: skip
def gaussian_nll_loss(out, x, target, var, full=False, eps=1e-6, reduction="mean"):
    varies = isinstance(var, torch.Tensor)
    v = var.clamp_min(eps) if varies else max(var, eps)
    axis_left_out = varies and var.ndim < x.ndim
    v = v.unsqueeze(-1) if axis_left_out else v
    difference = x - target
    g = averaged(out.g, difference, reduction)
    x.g = g * difference / v
    target.g = -x.g
    if varies:
        by_term = g * (1 - difference**2 / v) / (2 * v)
        var.g = by_term.sum(-1) if axis_left_out else by_term


_nn, _aten = torch._C._nn, torch.ops.aten
by_number(F.mse_loss, "input target reduction", _nn.mse_loss, _aten.mse_loss)
by_number(F.l1_loss, "input target reduction", _nn.l1_loss, _aten.l1_loss)
by_number(F.huber_loss, "input target reduction delta", _nn.huber_loss, _aten.huber_loss)
by_number(F.smooth_l1_loss, "input target reduction beta", _nn.smooth_l1_loss, _aten.smooth_l1_loss)
by_number(F.binary_cross_entropy, "input target weight reduction", _nn.binary_cross_entropy, _aten.binary_cross_entropy)
by_number(
    F.binary_cross_entropy_with_logits,
    "input target weight pos_weight reduction",
    torch.binary_cross_entropy_with_logits,
    _aten.binary_cross_entropy_with_logits,
)
by_number(F.kl_div, "input target reduction log_target", torch.kl_div, _aten.kl_div)
by_number(
    F.poisson_nll_loss,
    "input target log_input full eps reduction",
    torch.poisson_nll_loss,
    _aten.poisson_nll_loss,
)
