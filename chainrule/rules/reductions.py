"""Sums, means, extremes and scans: one value goes back to all the elements that it was made from."""

import math

import torch

from chainrule.rules.book import rule
from chainrule.rules.selections import maximum as larger
from chainrule.rules.selections import minimum as smaller

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


@rule(torch.sum, samples=[*ALL, "r()", "r(0, 3)"])
def sum(out, x, dim=None, keepdim=False, dtype=None):
    x.g = spread(out.g, x, dim, keepdim)


@rule(torch.mean, samples=[*ALL, "r()"])
def mean(out, x, dim=None, keepdim=False, dtype=None):
    x.g = spread(out.g, x, dim, keepdim) / count(x, dim)


@rule(torch.amax, torch.amin, samples=["r(3, 4), 1", "r(3, 4), dim=(0, 1)", "r(3, 4), 0, True", "r(3, 4)", "i(3, 4, 5).double(), 1"],
      note="equal extremes share the gradient")  # fmt: skip
def amax(out, x, dim=(), keepdim=False):
    chosen = x == restore(out, x, dim, keepdim)
    ties = chosen.sum() if no_axes(dim) else chosen.sum(dim, keepdim=True)
    x.g = restore(out.g, x, dim, keepdim) * chosen / ties


def _extreme(out, x, dim, keepdim, of_two):
    if isinstance(dim, torch.Tensor):
        of_two(out, x, dim)
    elif dim is None:
        amax(out, x)
    else:
        values, indices = out
        g, at = values.g, indices
        if not keepdim and x.ndim:
            g, at = g.unsqueeze(dim), at.unsqueeze(dim)
        x.g = torch.zeros_like(x).scatter(dim, at, g) if x.ndim else g


@rule(torch.max, samples=["r(3, 4)", "r(3, 4), 1", "r(3, 4), dim=0, keepdim=True", "r(3, 4), r(4)", "i(3, 4, 5).double()"],
      note="over all elements, equal maxima share the gradient; along an axis it goes to the index that is given")  # fmt: skip
def max(out, x, dim=None, keepdim=False):
    _extreme(out, x, dim, keepdim, larger)


@rule(torch.min, samples=["r(3, 4)", "r(3, 4), 1", "r(3, 4), dim=0, keepdim=True", "r(3, 4), r(4)"],
      note="over all elements, equal minima share the gradient; along an axis it goes to the index that is given")  # fmt: skip
def min(out, x, dim=None, keepdim=False):
    _extreme(out, x, dim, keepdim, smaller)


SPREADS = [*ALL, "r(3, 4), dim=1, unbiased=False", "r(3, 4), dim=0, correction=0", "r(5), False"]


def _freedom(x, dim, unbiased, correction):
    """N - 1 or N: the number that the squares are divided by."""
    n = count(x, dim)
    less = correction if correction is not None else (1 if unbiased else 0)
    return n - less if less else n


def _mean(x, dim):
    return x.mean() if no_axes(dim) else x.mean(dim, keepdim=True)


@rule(torch.var, samples=SPREADS)
def var(out, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    n = _freedom(x, dim, unbiased, correction)
    x.g = restore(out.g, x, dim, keepdim) * 2 * (x - _mean(x, dim)) / n


@rule(torch.std, samples=SPREADS, note="where all values are equal the gradient is 0")
def std(out, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    n = _freedom(x, dim, unbiased, correction)
    g = (out.g / out).masked_fill(out == 0, 0)
    x.g = restore(g, x, dim, keepdim) * (x - _mean(x, dim)) / n


@rule(torch.logsumexp, samples=["r(3, 4), 1", "r(3, 4), dim=(0, 1)", "r(3, 4), 0, True", "r(5), 0"])
def logsumexp(out, x, dim, keepdim=False):
    x.g = restore(out.g, x, dim, keepdim) * (x - restore(out, x, dim, keepdim)).exp()


@rule(torch.prod, samples=["r(3, 4)", "r(3, 4), 1", "r(3, 4), 0, True", "r(3, 4) * m(3, 4), 1", "r(4) * m(4)", "r(3, 0), 1"],
      note="the product of the other elements is used, so that zeros are no trouble")  # fmt: skip
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


@rule(torch.cumsum, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(5), -1"])
def cumsum(out, x, dim, dtype=None):
    x.g = out.g.flip(dim).cumsum(dim).flip(dim)


@rule(torch.cumprod, samples=["p(3, 4), 1", "p(5), 0", "r(4) * m(4), 0"],
      note="the products of the other elements are formed, n * n of them, so that zeros are no trouble")  # fmt: skip
def cumprod(out, x, dim, dtype=None):
    values, g = x.movedim(dim, -1).unsqueeze(-1), out.g.movedim(dim, -1).unsqueeze(-2)
    n = x.shape[dim] if x.ndim else 1
    itself = torch.eye(n, dtype=torch.bool, device=x.device)
    others = values.transpose(-1, -2).expand((*values.shape[:-1], n)).masked_fill(itself, 1).cumprod(-1)
    x.g = (g * others.triu()).sum(-1).movedim(-1, dim)


@rule(torch.linalg.vector_norm, samples=["r(3, 4)", "r(3, 4), 2, 1", "r(3, 4), dim=0, keepdim=True", "r(3, 4), 1", "r(3, 4), 3, 1"],
      note="at 0 the gradient is 0")  # fmt: skip
def vector_norm(out, x, ord=2, dim=None, keepdim=False):
    if ord in (0, float("inf"), -float("inf")):
        return NotImplemented
    norm, g = restore(out, x, dim, keepdim), restore(out.g, x, dim, keepdim)
    if ord == 1:
        x.g = g * x.sign()
    elif ord == 2:
        x.g = (g * x / norm).masked_fill(norm == 0, 0)
    else:
        x.g = (g * x.sign() * x.abs() ** (ord - 1) / norm ** (ord - 1)).masked_fill(norm == 0, 0)
    return None


@rule(torch.linalg.norm, samples=["r(3, 4)", "r(3, 4), dim=1, keepdim=True", "r(5), 3", "r(2, 3), 1, 1"])
def norm(out, x, ord=None, dim=None, keepdim=False):
    if ord is not None and not isinstance(dim, int) and x.ndim != 1:
        return NotImplemented  # a matrix norm
    return vector_norm(out, x, 2 if ord is None else ord, dim, keepdim)
