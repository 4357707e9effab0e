"""Diagonals and triangles of a matrix: what is left out gets no gradient."""

import torch

from chainrule.rules.book import rule


@rule(torch.tril, samples=["r(3, 4)", "r(4, 4), -1"], complex=True)
def lower(out, x, diagonal=0):
    x.g = out.g.tril(diagonal)


@rule(torch.triu, samples=["r(3, 4)", "r(4, 4), 1"], complex=True)
def upper(out, x, diagonal=0):
    x.g = out.g.triu(diagonal)


@rule(torch.diagonal, samples=["r(3, 3)", "r(3, 4), 1", "r(2, 3, 4), -1, 1, 2"], complex=True)
def diagonal(out, x, offset=0, dim1=0, dim2=1):
    x.g = torch.diagonal_scatter(torch.zeros_like(x), out.g, offset, dim1, dim2)


@rule(torch.diagonal_scatter, samples=["r(3, 3), r(3)", "r(2, 3, 4), r(2, 2), -1, 1, 2"], complex=True)
def diagonal_scatter(out, x, src, offset=0, dim1=0, dim2=1):
    x.g = torch.diagonal_scatter(out.g, torch.zeros_like(src), offset, dim1, dim2)
    src.g = out.g.diagonal(offset, dim1, dim2)


@rule(torch.diag, samples=["r(3)", "r(3), 1", "r(3, 4)", "r(3, 4), -1"], complex=True)
def diag(out, x, diagonal=0):
    if x.ndim == 1:
        x.g = out.g.diagonal(diagonal)
    else:
        x.g = torch.diagonal_scatter(torch.zeros_like(x), out.g, diagonal)


@rule(torch.diag_embed, samples=["r(3)", "r(2, 3), 1", "r(2, 3), offset=-1, dim1=0, dim2=2"], complex=True)
def diag_embed(out, x, offset=0, dim1=-2, dim2=-1):
    x.g = out.g.diagonal(offset, dim1, dim2)


@rule(torch.diagflat, samples=["r(3)", "r(2, 3), -1", "r(), 1"], complex=True)
def diagflat(out, x, offset=0):
    x.g = out.g.diagonal(offset).reshape(x.shape)
