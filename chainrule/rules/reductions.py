"""Sums, products, means and spreads: one value goes back to all the elements that it was made from."""

import math

import torch

from chainrule.rules.book import opening, rule

ALL = [
    "r(3, 4)",
    "r(3, 4), 1",
    "r(3, 4), dim=0",
    "r(2, 3, 4), dim=(0, 2)",
    "r(3, 4), dim=-1, keepdim=True",
    "r(2, 3, 4), 1, True",
]


def spread(g, x, dim, keepdim):
    """`g`, reduced over `dim`, in the shape of `x` again."""
    return restore(g, x, dim, keepdim).expand(x.shape)


def restore(g, x, dim, keepdim):
    """`g` with its reduced axes back, of size one."""
    if keepdim or no_axes(dim) or x.ndim == 0:
        return g
    if isinstance(dim, int):
        return g.unsqueeze(dim)
    for axis in sorted(d % x.ndim for d in dim):
        g = g.unsqueeze(axis)
    return g


def no_axes(dim):
    return dim is None or (isinstance(dim, tuple | list) and not dim)


def count(x, dim):
    """How many elements each reduced value was made from, as a number that knows its name."""
    if no_axes(dim):
        return x.numel()
    axes = (dim,) if isinstance(dim, int) else tuple(dim)
    return math.prod(x.shape[axis] for axis in axes) if x.ndim else 1


@rule(torch.sum, samples=[*ALL, "r()", "r(0, 3)"], complex=True)
def sum(out, x, dim=None, keepdim=False, dtype=None):
    x.g = spread(out.g, x, dim, keepdim)


@rule(
    torch.nansum,
    samples=[*ALL],
    note="NaN counts as 0, and gets no gradient",
)
def nansum(out, x, dim=None, keepdim=False, dtype=None):
    x.g = spread(out.g, x, dim, keepdim) * ~x.isnan()


@opening(torch.nanmean, torch.Tensor.nanmean)
def nanmean(input, dim=None, keepdim=False, *, dtype=None):
    how = {} if dim is None else {"dim": dim, "keepdim": keepdim} if keepdim else {"dim": dim}
    total = input.nansum(**how) if dtype is None else input.nansum(**how, dtype=dtype)
    return total / (~input.isnan()).sum(**how)


@rule(torch.mean, samples=[*ALL, "r()"], complex=True)
def mean(out, x, dim=None, keepdim=False, dtype=None):
    x.g = spread(out.g, x, dim, keepdim) / count(x, dim)


SPREADS = [*ALL, "r(3, 4), dim=1, unbiased=False", "r(3, 4), dim=0, correction=0", "r(5), False"]


def _freedom(x, dim, unbiased, correction):
    """N - 1 or N: the number that the squares are divided by."""
    n = count(x, dim)
    less = correction if correction is not None else (1 if unbiased else 0)
    return n - less if less else n


def _mean(x, dim):
    return x.mean() if no_axes(dim) else x.mean(dim, keepdim=True)


@rule(torch.var, samples=SPREADS, complex=True)
def var(out, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    n = _freedom(x, dim, unbiased, correction)
    x.g = restore(out.g, x, dim, keepdim) * 2 * (x - _mean(x, dim)) / n


@rule(torch.std, samples=SPREADS, note="where all values are equal the gradient is 0", complex=True)
def std(out, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    n = _freedom(x, dim, unbiased, correction)
    g = (out.g / out).masked_fill(out == 0, 0)
    x.g = restore(g, x, dim, keepdim) * (x - _mean(x, dim)) / n


@rule(torch.var_mean, samples=SPREADS, complex=True)
def var_mean(out, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    spread_, average = out
    var(spread_, x, dim, unbiased, keepdim, correction=correction)
    x.g = x.g + spread(average.g, x, dim, keepdim) / count(x, dim)


@rule(
    torch.std_mean, samples=SPREADS, note="where all values are equal the gradient of the deviation is 0", complex=True
)
def std_mean(out, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    deviation, average = out
    std(deviation, x, dim, unbiased, keepdim, correction=correction)
    x.g = x.g + spread(average.g, x, dim, keepdim) / count(x, dim)


@rule(torch.logsumexp, samples=["r(3, 4), 1", "r(3, 4), dim=(0, 1)", "r(3, 4), 0, True", "r(5), 0"], holomorphic=True)
def logsumexp(out, x, dim, keepdim=False):
    x.g = restore(out.g, x, dim, keepdim) * (x - restore(out, x, dim, keepdim)).exp()


@rule(torch.prod, samples=["r(3, 4)", "r(3, 4), 1", "r(3, 4), 0, True", "r(3, 4) * m(3, 4), 1", "r(4) * m(4)", "r(3, 0), 1"],
      note="the product of the other elements is used, so that zeros are no trouble", holomorphic=True)  # fmt: skip
def prod(out, x, dim=None, keepdim=False, dtype=None):
    flat, axis = (x.flatten(), 0) if dim is None else (x, dim)
    if not flat.shape or not int(flat.shape[axis]):
        x.g = spread(out.g, x, dim, keepdim)
        return
    ones = torch.ones_like(flat.narrow(axis, 0, 1))
    n = flat.shape[axis]
    before = torch.cat([ones, flat.narrow(axis, 0, n - 1)], axis).cumprod(axis)
    after = torch.cat([ones, flat.flip(axis).narrow(axis, 0, n - 1)], axis).cumprod(axis).flip(axis)
    others = before * after
    x.g = (out.g * others).reshape(x.shape) if dim is None else restore(out.g, x, dim, keepdim) * others
