"""Comparisons that choose: maximum, minimum, where, clamp. What is not chosen gets no gradient."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import constant, rule


@rule(torch.maximum, samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)"], elementwise=True,
      note="where both are equal, each gets one half; where one is NaN, each gets all")  # fmt: skip
def maximum(out, a, b):
    a.g = torch.where(a == b, out.g / 2, out.g).masked_fill(a < b, 0)
    b.g = torch.where(a == b, out.g / 2, out.g).masked_fill(a > b, 0)


@rule(torch.minimum, samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)"], elementwise=True,
      note="where both are equal, each gets one half; where one is NaN, each gets all")  # fmt: skip
def minimum(out, a, b):
    a.g = torch.where(a == b, out.g / 2, out.g).masked_fill(a > b, 0)
    b.g = torch.where(a == b, out.g / 2, out.g).masked_fill(a < b, 0)


@rule(
    torch.fmax,
    samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)"],
    elementwise=True,
    note="where both are equal, the first gets all",
)
def fmax(out, a, b):
    first = (a >= b) | b.isnan()
    a.g = out.g * first
    b.g = out.g * ~first


@rule(
    torch.fmin,
    samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)"],
    elementwise=True,
    note="where both are equal, the first gets all",
)
def fmin(out, a, b):
    first = (a <= b) | b.isnan()
    a.g = out.g * first
    b.g = out.g * ~first


@rule(
    torch.where,
    samples=["m(3, 4), r(3, 4), r(4)", "m(3), r(3), 0.0", "m(3, 1), r(), r(1, 4)"],
    elementwise=True,
    complex=True,
)
def where(out, condition, a, b):
    if condition.dtype != torch.bool:  # the method: x.where(condition, y)
        condition, a = a, condition
    a.g = torch.where(condition, out.g, 0)
    b.g = torch.where(condition, 0, out.g)


@rule(torch.clamp, samples=["r(3, 4), -0.5, 0.5", "r(3, 4), min=0", "r(3, 4), max=0.2", "r(3, 4), r(4), p(3, 4)"],
      elementwise=True, note="at the bounds the gradient is 1")  # fmt: skip
def clamp(out, x, min=None, max=None):
    if min is None:
        x.g = out.g * (x <= max)
    elif max is None:
        x.g = out.g * (x >= min)
    else:
        x.g = out.g * ((x >= min) & (x <= max))
    if isinstance(min, torch.Tensor):
        min.g = out.g * (x < min) if max is None else out.g * ((x < min) & (min < max))
    if isinstance(max, torch.Tensor):
        max.g = out.g * (x > max) if min is None else out.g * ((x > max) | (max < min))


@rule(
    torch.clamp_min, samples=["r(3, 4), 0.0", "r(3, 4), r(4)"], elementwise=True, note="at the bound the gradient is 1"
)
def clamp_min(out, x, min):
    x.g = out.g * (x >= min)
    min.g = out.g * (x < min)


@rule(
    torch.clamp_max, samples=["r(3, 4), 0.0", "r(3, 4), r(4)"], elementwise=True, note="at the bound the gradient is 1"
)
def clamp_max(out, x, max):
    x.g = out.g * (x <= max)
    max.g = out.g * (x > max)


@rule(torch.fill, samples=["r(3, 4), r()"], elementwise=True, complex=True)
def fill(out, x, value):
    x.g = None
    if isinstance(value, torch.Tensor):
        value.g = out.g.sum()


@rule(torch.nan_to_num, samples=["r(3, 4)", "r(3, 4), 1.0, posinf=2.0, neginf=3.0"], elementwise=True,
      note="what was not finite gets no gradient")  # fmt: skip
def nan_to_num(out, x, nan=None, posinf=None, neginf=None):
    x.g = out.g * x.isfinite()


constant(torch.gt, torch.ge, torch.lt, torch.le, torch.eq, torch.ne, torch.isnan, torch.isinf, torch.isfinite,
         torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor, torch.bitwise_not, torch.logical_and,
         torch.logical_or, torch.logical_not, torch.logical_xor, why="gives truth values")  # fmt: skip
constant(torch.sign, torch.floor, torch.ceil, torch.round, torch.trunc, torch.floor_divide, torch.heaviside,
         why="is flat between its steps")  # fmt: skip
constant(torch.argmax, torch.argmin, torch.argsort, torch.bincount, torch.nonzero, torch.searchsorted, torch.bucketize,
         F.one_hot, torch.count_nonzero, torch.unique, why="gives indices or counts")  # fmt: skip
constant(torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like, torch.zeros, torch.ones, torch.full,
         torch.arange, torch.linspace, torch.eye, torch.tensor, "new_zeros", "new_ones", "new_full", "new_tensor", "new_empty",
         why="does not depend on the values that it is given")  # fmt: skip
constant("detach", "data", "item", why="is cut off by definition")
