"""Elementwise functions, powers, choices and broadcasting."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.registry import normal, positive, truths, unit, zoo


@zoo(lambda n: (normal(n),))
def square_and_double(x: Tensor) -> Tensor:
    return (x * x + (x + x)).sum()


@zoo(lambda n: (positive(n, 2),))
def powers(x: Tensor) -> Tensor:
    return x**2 + x**3 + x**0.5 + x**-1 + x**-2 + x**1.7 + x.pow(4)


@zoo(lambda n: (normal(n, 2),))
def powers_zero_and_one(x: Tensor) -> Tensor:
    return (x**0).sum() + (x**1).sum() + x.pow(1).pow(2).sum()


@zoo(lambda n: (positive(n), normal(n)))
def power_of_tensors(base: Tensor, exponent: Tensor) -> Tensor:
    return (base**exponent).sum() + (2.0**exponent).mean() + torch.pow(base, exponent * exponent).sum()


@zoo(lambda n: (normal(n, 3), normal(n, 3), normal(3)))
def maximum_and_minimum(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(a, b) * torch.minimum(b, c) + torch.max(a, c)


@zoo(lambda n: (torch.ones(n).double(), torch.ones(n).double()), smooth=False)
def ties_of_maximum(a: Tensor, b: Tensor) -> Tensor:
    return (torch.maximum(a, b) * 3 + torch.minimum(a, b)).sum()


@zoo(lambda n: (2 * normal(n, 3),))
def clamped(x: Tensor) -> Tensor:
    return x.clamp(-1, 1) * x + x.clamp(min=0.3).log() + torch.clamp(x, max=0.5).exp()


@zoo(lambda n: (torch.zeros(n, 3).double(),), smooth=False)
def relu_at_zero(x: Tensor) -> Tensor:
    return (x.relu() + x.abs() + F.relu6(x)).sum()


@zoo(lambda n: (normal(n, 3), normal(n, 3), truths(n, 3)))
def where_chooses(a: Tensor, b: Tensor, keep: Tensor) -> Tensor:
    picked = torch.where(keep, a.exp(), b)
    return torch.where(picked > 1, picked, picked**2).sum()


@zoo(lambda n: (normal(n, 3), truths(n, 3)))
def mask_multiplied(x: Tensor, keep: Tensor) -> Tensor:
    return (x.sin() * keep).sum() / keep.sum()


@zoo(lambda n: (normal(n, 3),))
def activations(x: Tensor) -> Tensor:
    return F.gelu(x) + F.silu(x) + F.softplus(x) + F.elu(x) + F.leaky_relu(x, 0.1) + x.sigmoid() + x.tanh()


@zoo(lambda n: (normal(n, 3),))
def gelu_written_out(x: Tensor) -> Tensor:
    return (0.5 * x * (1 + torch.erf(x / 2**0.5))).sum() + F.gelu(x, approximate="tanh").sum()


@zoo(lambda n: (unit(n, 3),))
def trigonometry(t: Tensor) -> Tensor:
    return t.sin() * t.cos() + t.tan() / torch.atan(t) + t.asin() - t.acos() + t.sinh() * t.cosh()


@zoo(lambda n: (positive(n, 3),))
def logarithms(x: Tensor) -> Tensor:
    return (x.log() + x.log1p() * x.log2() - x.log10() + x.sqrt() * x.rsqrt() + x.reciprocal()).sum()


@zoo(lambda n: (normal(n, 3),))
def negations(x: Tensor) -> Tensor:
    y = -x
    return -y * -x.neg() - (1 - x) + (-2 * x).exp()


@zoo(lambda n: (normal(n, 3), normal(3), normal(n, 1), normal()))
def broadcasting(table: Tensor, row: Tensor, column: Tensor, number: Tensor) -> Tensor:
    return ((table + row) * column - number) / (1 + number**2)


@zoo(lambda n: (normal(n, 3, 2), normal(3, 1), normal(2), normal(n, 1, 1)))
def broadcasting_rank_three(cube: Tensor, column: Tensor, row: Tensor, each: Tensor) -> Tensor:
    return (cube * column + row * each).pow(2).sum()


@zoo(lambda n: (normal(n, 1), normal(1, 4)))
def column_times_row(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).tanh() + a - b


@zoo(lambda n: (normal(n, 1, 3), normal(1, 1), normal(1)))
def axes_of_size_one(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return (x * w + b).sigmoid().sum(1)


@zoo(lambda n: (normal(n, 2), normal(1, 2)), pattern="a second argument of batch one is the same as a stretched one")
def one_row_against_many(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).sum()


@zoo(lambda n: (normal(n, 3), normal(n, 2)))
def pairwise_distances(a: Tensor, b: Tensor) -> Tensor:
    wide = torch.cat([b, b[:, :1]], dim=1)
    return (a[:, None] - wide[None, :]).pow(2).sum(-1).add(1).sqrt().mean()


@zoo(lambda n: (normal(), normal(n)))
def scalar_first(alpha: Tensor, x: Tensor) -> Tensor:
    return (3 - alpha) * (2 / (alpha**2 + 1)) * (x - alpha).exp().mean()


@zoo(lambda n: (normal(), normal()), batches=())
def only_scalars(a: Tensor, b: Tensor) -> Tensor:
    c = a * b + a
    d = c.tanh() * b
    return d / (1 + c**2)


@zoo(lambda n: (normal(n), normal(n), unit(n)))
def fused_arithmetic(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return torch.lerp(a, b, t) + torch.addcmul(a, b, t, value=0.5) + torch.addcdiv(a, b, t + 1) + a.add(b, alpha=2)


@zoo(lambda n: (normal(n, 2),))
def floor_has_no_slope(x: Tensor) -> Tensor:
    return ((x - x.floor()) * x.sign()).sum() + (x * x.round().detach()).sum()


@zoo(lambda n: (normal(n, 3),))
def flat_parts(x: Tensor) -> Tensor:
    return (x * (x > 0)).sum() + torch.sign(x).sum()


@zoo(lambda n: (positive(n, 3), positive(3)))
def x_log_y(x: Tensor, y: Tensor) -> Tensor:
    return torch.xlogy(x, y).sum() + (x * x.log()).mean()


@zoo(lambda n: (normal(n, 3),))
def square_behind_a_mask(x: Tensor) -> Tensor:
    grown = x.relu().exp()
    return (grown**2).mean()


@zoo(lambda n: (normal(n, 3),))
def quotient_behind_a_mask(x: Tensor) -> Tensor:
    v = x.clamp_min(-0.5)
    w = 1 / (v * v + 1)
    return (w * w * w).mean()
