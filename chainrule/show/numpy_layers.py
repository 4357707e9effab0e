"""Layers and losses that torch has a function for, in the words of NumPy."""

from __future__ import annotations

from typing import Any

from chainrule.show import numpy_helpers as helpers
from chainrule.show.numpy_operations import times
from chainrule.show.numpy_words import Library, helper, spelled
from chainrule.show.terms import known, rank


@spelled("linear")
def linear(np: Library, x: Any, w: Any, b: Any = None) -> Any:
    out = x @ w.T
    return out if b is None else out + b


@spelled("layer_norm")
def layer_norm(np: Library, x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    last = -1 if len(shape) == 1 else tuple(range(-len(shape), 0))
    return scaled(helper(np, helpers.normalised)(x, last, eps), weight, bias)


def scaled(x: Any, weight: Any, bias: Any) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@spelled("rms_norm")
def rms_norm(np: Library, x: Any, shape: Any, weight: Any = None, eps: Any = None) -> Any:
    last = -1 if len(shape) == 1 else tuple(range(-len(shape), 0))
    eps = np.finfo(x.dtype).eps if eps is None else eps
    return scaled(x / np.sqrt((x**2).mean(axis=last, keepdims=True) + eps), weight, None)


def per_channel(v: Any, x: Any) -> Any:
    """A vector of channels as it is stretched over x."""
    return v if v is None or rank(x) == 2 else v[(slice(None), *[None] * (rank(x) - 2))]


@spelled("batch_norm")
def batch_norm(
    np: Library,
    x: Any,
    mean: Any,
    var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    weight, bias = per_channel(weight, x), per_channel(bias, x)
    if training:
        return scaled(helper(np, helpers.normalised)(x, (0, *range(2, rank(x))), eps), weight, bias)
    return scaled((x - per_channel(mean, x)) / np.sqrt(per_channel(var, x) + eps), weight, bias)


@spelled("instance_norm")
def instance_norm(
    np: Library, x: Any, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    normal = helper(np, helpers.normalised)(x, tuple(range(2, rank(x))), eps)
    return scaled(normal, per_channel(weight, x), per_channel(bias, x))


@spelled("group_norm")
def group_norm(np: Library, x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    split = x.reshape(x.shape[0], groups, -1)
    normal = helper(np, helpers.normalised)(split, -1, eps).reshape(x.shape)
    return scaled(normal, per_channel(weight, x), per_channel(bias, x))


def reduced(loss: Any, reduction: str) -> Any:
    """The losses of the examples, or their mean or sum."""
    return loss if reduction == "none" else getattr(loss, reduction)()


@spelled("cosine_similarity")
def cosine_similarity(np: Library, u: Any, v: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    if rank(u) != rank(v):
        return NotImplemented
    return helper(np, helpers.cosine_similarity)(u, v, dim, eps)


@spelled("mse_loss")
def mse_loss(np: Library, x: Any, y: Any, reduction: str = "mean") -> Any:
    return reduced((x - y) ** 2, reduction)


@spelled("l1_loss")
def l1_loss(np: Library, x: Any, y: Any, reduction: str = "mean") -> Any:
    return reduced(np.abs(x - y), reduction)


@spelled("huber_loss")
def huber_loss(np: Library, x: Any, y: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    r = np.abs(x - y)
    return reduced(np.where(r <= delta, 0.5 * r**2, times(delta, r - 0.5 * delta)), reduction)


@spelled("smooth_l1_loss")
def smooth_l1_loss(np: Library, x: Any, y: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    r = np.abs(x - y)
    return reduced(np.where(r < beta, 0.5 * r**2 / beta, r - 0.5 * beta), reduction) if beta else NotImplemented


@spelled("kl_div")
def kl_div(np: Library, x: Any, y: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    pointwise = np.exp(y) * (y - x) if log_target else y * (np.log(np.where(y > 0, y, 1)) - x)
    return pointwise.sum() / x.shape[0] if reduction == "batchmean" else reduced(pointwise, reduction)


@spelled("binary_cross_entropy")
def binary_cross_entropy(np: Library, p: Any, y: Any, weight: Any = None, reduction: str = "mean") -> Any:
    if weight is not None:
        return NotImplemented
    return reduced(helper(np, helpers.binary_cross_entropy)(p, y), reduction)


@spelled("binary_cross_entropy_with_logits")
def with_logits(
    np: Library, x: Any, y: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    if weight is not None or pos_weight is not None:
        return NotImplemented
    return reduced(np.logaddexp(0, x) - x * y, reduction)


def of_classes(np: Library, logp: Any, y: Any, reduction: str, ndim: int) -> Any:
    """The negative log-probabilities of the classes `y`."""
    if ndim == 1:
        return -logp[y]
    picked = logp[np.arange(y.shape[0]), y]
    return -picked if reduction == "none" else -getattr(picked, reduction)()


@spelled("nll_loss")
def nll_loss(
    np: Library, logp: Any, y: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    if weight is not None or rank(logp) > 2 or rank(logp) != rank(y) + 1 or ignored(y, ignore_index):
        return NotImplemented
    return of_classes(np, logp, y, reduction, rank(logp))


def ignored(y: Any, ignore_index: int) -> bool:
    return ignore_index >= 0 or bool((known(y) == ignore_index).any())


@spelled("cross_entropy")
def cross_entropy(
    np: Library,
    x: Any,
    y: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    if weight is not None or rank(x) > 2 or label_smoothing:
        return NotImplemented
    by: Any = np._by
    logp = by.operations["log_softmax"](np, x, rank(x) - 1)
    if known(y).dtype.is_floating_point and rank(y) == rank(x):
        loss = -(y * logp).sum(axis=-1)
        return loss if rank(x) == 1 else reduced(loss, reduction)
    if rank(x) != rank(y) + 1 or ignored(y, ignore_index):
        return NotImplemented
    return of_classes(np, logp, y, reduction, rank(x))


@spelled("margin_ranking_loss")
def margin_ranking_loss(np: Library, a: Any, b: Any, y: Any, margin: float = 0, reduction: str = "mean") -> Any:
    return reduced(np.maximum(-y * (a - b) + margin, 0), reduction)


@spelled("soft_margin_loss")
def soft_margin_loss(np: Library, x: Any, y: Any, reduction: str = "mean") -> Any:
    return reduced(np.logaddexp(0, -y * x), reduction)


@spelled("hinge_embedding_loss")
def hinge_embedding_loss(np: Library, x: Any, y: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    return reduced(np.where(y == 1, x, np.maximum(margin - x, 0)), reduction)
