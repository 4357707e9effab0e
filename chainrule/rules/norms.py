"""Norms of vectors and matrices, and what is made of them: distances, condition numbers, shortened rows."""

import math

import torch

from chainrule.rules.book import opening, rule
from chainrule.rules.reductions import restore

AT_ZERO = "at 0 the gradient is 0; equal extremes share it"


@rule(torch.linalg.vector_norm,
      samples=["r(3, 4)", "r(3, 4), 2, 1", "r(3, 4), dim=0, keepdim=True", "r(3, 4), 1", "r(3, 4), 3, 1", "r(3, 4), 1.5, 1", "p(3, 4), 0.5, 1",
               "r(3, 4), 0, 1", "r(3, 4), float('inf'), 1", "r(3, 4), -float('inf'), (0, 1)", "r(3, 4), -1, 1", "r(3, 4) * m(3, 4), 0.5, 1",
               "r(), 3", "i(3, 4, 5).double() - 1, float('inf'), 1"],
      note=AT_ZERO, complex=True)  # fmt: skip
def vector_norm(out, x, ord=2, dim=None, keepdim=False, dtype=None):
    norm, g = restore(out, x, dim, keepdim), restore(out.g, x, dim, keepdim)
    if ord == 0:
        x.g = torch.zeros_like(x)
    elif ord == 1:
        x.g = g * x.sgn()
    elif ord == 2:
        x.g = (g * x / norm).masked_fill(norm == 0, 0)
    elif math.isinf(ord):
        chosen = x.abs() == norm
        ties = chosen.sum() if dim is None else chosen.sum(dim, keepdim=True)
        x.g = g * x.sgn() * chosen / ties
    elif ord < 1:
        x.g = g * x.sgn() * (x.abs() ** (ord - 1)).masked_fill(x == 0, 0) * norm ** (1 - ord)
    else:
        x.g = x.sgn() * x.abs() ** (ord - 1) * (g / norm ** (ord - 1)).masked_fill(norm == 0, 0)


@rule(torch.linalg.matrix_norm,
      samples=["r(3, 4)", "r(3, 4), 'nuc'", "r(3, 4), 2", "r(4, 3), -2", "r(3, 4), 1", "r(3, 4), -1, keepdim=True", "r(2, 3, 4), float('inf'), (0, 2)",
               "r(2, 3, 4), -float('inf'), (2, 0), True", "r(3, 2, 4), 'nuc', (0, 2)", "r(2, 3, 4), 2, (2, 0), True", "r(2, 3, 4), 'fro', (0, 1)"],
      note=AT_ZERO, complex=True,
      source="Watson (1992), Characterization of the subdifferential of some matrix norms")  # fmt: skip
def matrix_norm(out, x, ord="fro", dim=(-2, -1), keepdim=False, dtype=None):
    g = restore(out.g, x, dim, keepdim)
    rows, columns = dim
    if ord == "fro":
        vector_norm(out, x, 2, dim, keepdim)
    elif ord == "nuc" or abs(ord) == 2:
        moved = [axis % x.ndim for axis in dim] != [x.ndim - 2, x.ndim - 1]
        U, S, Vh = torch.linalg.svd(x.movedim(dim, (-2, -1)) if moved else x, full_matrices=False)
        directions = U @ Vh if ord == "nuc" else (U * _extreme(S, -1, ord).unsqueeze(-2)) @ Vh
        x.g = g * (directions.movedim((-2, -1), dim) if moved else directions)
    else:
        added, compared = (rows, columns) if abs(ord) == 1 else (columns, rows)
        x.g = g * _extreme(torch.linalg.vector_norm(x, 1, added, keepdim=True), compared, ord) * x.sgn()


def _extreme(values, dim, ord):
    """The gradient of the largest of `values`, or the smallest where ord < 0: equal ones share it."""
    chosen = values == (values.amax(dim, keepdim=True) if ord > 0 else values.amin(dim, keepdim=True))
    return chosen / chosen.sum(dim, keepdim=True)


@rule(torch.linalg.norm,
      samples=["r(3, 4)", "r(3, 4), dim=1, keepdim=True", "r(5), 3", "r(2, 3), 1, 1", "r(3, 4), 'nuc'", "r(2, 3, 4), 1, (0, 2)", "r(3, 4), 2",
               "r(2, 3, 4)", "r(3, 4), float('inf'), (1,)"],
      note=AT_ZERO, complex=True)  # fmt: skip
def norm(out, x, ord=None, dim=None, keepdim=False, dtype=None):
    axes = (dim,) if isinstance(dim, int) else tuple(range(x.ndim)) if dim is None else tuple(dim)
    if ord is None:
        vector_norm(out, x, 2, dim, keepdim)
    elif len(axes) == 1:
        vector_norm(out, x, ord, axes, keepdim)
    else:
        matrix_norm(out, x, ord, axes, keepdim)


@opening(torch.linalg.cond)
def cond(x, p=None):
    if p in (None, 2, -2):
        S = torch.linalg.svdvals(x)
        return S[..., -1] / S[..., 0] if p == -2 else S[..., 0] / S[..., -1]
    inverse, info = torch.linalg.inv_ex(x)
    inverse = inverse.masked_fill((info > 0).unsqueeze(-1).unsqueeze(-1), float("inf"))
    return torch.linalg.matrix_norm(x, p) * torch.linalg.matrix_norm(inverse, p)


@opening(torch.dist, torch.Tensor.dist)
def dist(input, other, p=2):
    return torch.linalg.vector_norm(input - other, p)


@opening(torch.renorm, torch.Tensor.renorm)
def renorm(input, p, dim, maxnorm):
    axes = tuple(axis for axis in range(input.ndim) if axis != dim % input.ndim)
    norm = torch.linalg.vector_norm(input, p, axes, keepdim=True)
    return input * torch.where(norm > maxnorm, maxnorm / (norm + 1e-7), 1.0)
