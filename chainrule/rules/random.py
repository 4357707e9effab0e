"""Random operations: what was drawn becomes an input, so that the derived code reproduces the run.

Each is drawn as torch draws it, so that a seed gives the run that it would have given.
"""

import math

import torch
import torch.nn.functional as F

from chainrule.recording.unseen import drawn
from chainrule.rules.book import opening, rule


def _kept(x, p, shape=None):
    """What is kept, a mask of `shape` (of `x`, unless it is given)."""
    with torch._C.DisableTorchFunction():
        blank = (torch.empty_like(x.detach()) if shape is None else x.new_empty(shape)).to("meta")

    dtype = torch.bool if x.is_cpu else blank.dtype  # on a CPU the same is drawn for each, in an eighth of the memory

    def draw():
        with torch._C.DisableTorchFunction():
            return torch.empty_like(blank, device=x.device, dtype=dtype).bernoulli_(1 - p).bool()

    return drawn(draw(), "mask", again=draw)


def _nothing_dropped(x, p, train):
    return not train or p == 0 or x.numel() == 0


def _dropped(x, p, inplace, mask):
    if inplace:
        return x.mul_(mask).div_(1 - p) if p < 1 else x.mul_(0)
    return x * mask / (1 - p) if p < 1 else x * 0


@opening(F.dropout)
def dropout(input, p=0.5, training=True, inplace=False):
    if _nothing_dropped(input, p, training):
        return input
    return _dropped(input, p, inplace, _kept(input, p) if p < 1 else None)


@opening(torch.dropout)
def torch_dropout(input, p, train):
    return dropout(input, p, train)


@opening(torch.dropout_)
def torch_dropout_in_place(input, p, train):
    return dropout(input, p, train, inplace=True)


@opening(torch.native_dropout)
def native_dropout(input, p, train):
    if not train or p == 0:
        return input * 1, torch.ones_like(input, dtype=torch.bool)
    mask = _kept(input, p)
    return _dropped(input, p, False, mask), mask


@rule(torch.ops.aten.native_dropout_backward, samples=["r(3, 4), m(3, 4), 2.0"])
def native_dropout_backward(out, grad_output, mask, scale):
    grad_output.g = out.g * mask * scale


def _channels(x):
    """The shape of one number for each channel of each example."""
    return (*x.shape[:2], *[1] * (x.ndim - 2))


@opening(torch.feature_dropout)
def feature_dropout(input, p, train, inplace=False):
    if _nothing_dropped(input, p, train):
        return input
    return _dropped(input, p, inplace, _kept(input, p, _channels(input)) if p < 1 else None)


@opening(torch.feature_dropout_)
def feature_dropout_in_place(input, p, train):
    return feature_dropout(input, p, train, inplace=True)


ALPHA = 1.7580993408473766  # what SELU falls to, Klambauer et al. (2017), Self-Normalizing Neural Networks


def _alpha_dropped(x, p, shape=None):
    """What is dropped is set to -ALPHA, and the whole moved so that the mean stays 0 and the variance 1."""
    if p == 1:
        return x * 0
    a = 1 / math.sqrt((ALPHA**2 * p + 1) * (1 - p))
    return torch.where(_kept(x, p, shape), x, -ALPHA) * a + ALPHA * a * p


@opening(torch.alpha_dropout)
def alpha_dropout(input, p, train):
    return input if _nothing_dropped(input, p, train) else _alpha_dropped(input, p)


@opening(torch.alpha_dropout_)
def alpha_dropout_in_place(input, p, train):
    return input if _nothing_dropped(input, p, train) else input.copy_(_alpha_dropped(input, p))


@opening(torch.feature_alpha_dropout)
def feature_alpha_dropout(input, p, train):
    return input if _nothing_dropped(input, p, train) else _alpha_dropped(input, p, _channels(input))


@opening(torch.feature_alpha_dropout_)
def feature_alpha_dropout_in_place(input, p, train):
    return input if _nothing_dropped(input, p, train) else input.copy_(_alpha_dropped(input, p, _channels(input)))


@opening(F.rrelu)
def rrelu(input, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    if not training:
        return F.leaky_relu(input, (lower + upper) / 2, inplace)
    with torch._C.DisableTorchFunction():  # a slope for each element below zero, one above
        slope = torch.empty_like(input.detach())
        torch._C._nn.rrelu_with_noise(input.detach(), slope, lower, upper, True)
    slope = drawn(slope, "slope")
    return input.mul_(slope) if inplace else input * slope


@opening(torch.rrelu)
def torch_rrelu(input, lower=1 / 8, upper=1 / 3, training=False):
    return rrelu(input, lower, upper, training)


@opening(torch.rrelu_)
def torch_rrelu_in_place(input, lower=1 / 8, upper=1 / 3, training=False):
    return rrelu(input, lower, upper, training, inplace=True)
