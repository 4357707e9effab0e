"""Joining and parting: each piece gets, or gives, its part of the gradient."""

import torch

from chainrule.rules.book import opening, rule


@rule(torch.cat, samples=["[r(2, 3), r(4, 3)], 0", "[r(2, 3), r(2, 1), r(2, 2)], dim=1", "[r(2, 3), r(4, 3)]", "[r(0), r(2, 3), r(2, 2)], -1"],
      complex=True, note="an empty vector joins anything and gets an empty gradient")  # fmt: skip
def cat(out, tensors, dim=0):
    start = 0
    for x in tensors:
        if x.ndim < out.ndim:
            x.g = torch.zeros_like(x)
            continue
        x.g = out.g.narrow(dim, start, x.shape[dim])
        start = x.shape[dim] + start


@rule(torch.stack, samples=["[r(2, 3), r(2, 3)], 0", "[r(3), r(3), r(3)], dim=-1", "[r(3), r(3)]"], complex=True)
def stack(out, tensors, dim=0):
    for i, x in enumerate(tensors):
        x.g = out.g.select(dim, i)


@rule(torch.hstack, samples=["[r(2, 3), r(2, 1)]", "[r(3), r(2), r()]", "[r(2, 1, 3), r(2, 2, 3)]"], complex=True)
def hstack(out, tensors):
    _cut(out.g, tensors, min(out.ndim, 2) - 1)


@rule(torch.vstack, torch.row_stack, samples=["[r(2, 3), r(1, 3)]", "[r(3), r(2, 3)]", "[r(), r()]"], complex=True)
def vstack(out, tensors):
    _cut(out.g, tensors, 0, whole=2)


@rule(
    torch.dstack, samples=["[r(2, 3), r(2, 3)]", "[r(3), r(3)]", "[r(2, 3, 1), r(2, 3, 2)]", "[r(), r()]"], complex=True
)
def dstack(out, tensors):
    _cut(out.g, tensors, 2)


@rule(torch.column_stack, samples=["[r(3), r(3)]", "[r(3, 2), r(3)]", "[r(), r()]"], complex=True)
def column_stack(out, tensors):
    _cut(out.g, tensors, 1)


def _cut(g, tensors, dim, whole=0):
    """Each tensor's part of `g` along `dim`; those with fewer axes than `whole`, or without `dim`, are one long there."""
    start = 0
    for x in tensors:
        n = x.shape[dim] if x.ndim > dim and x.ndim >= whole else 1
        part = g.narrow(dim, start, n)
        x.g = part if x.ndim == g.ndim else part.reshape(x.shape)
        start = n + start


@rule(torch.block_diag, samples=["r(2, 3), r(1, 2)", "r(2), r(3, 3), r()"], complex=True)
def block_diag(out, *blocks):
    row, column = 0, 0
    for x in blocks:
        rows = x.shape[0] if x.ndim > 1 else 1
        columns = x.shape[-1] if x.ndim else 1
        block = out.g.narrow(0, row, rows).narrow(1, column, columns)
        x.g = block if x.ndim > 1 else block.reshape(x.shape)
        row, column = rows + row, columns + column


@rule(torch.chunk, torch.tensor_split, samples=["r(3, 4), 2, 1", "r(5), 2"], complex=True)
@rule(torch.split, samples=["r(5, 2), (2, 3)", "r(3, 4), 3, dim=1"], complex=True)
@rule(torch.split_with_sizes, torch.unsafe_split_with_sizes, samples=["r(5, 2), (2, 3)", "r(2, 5), split_sizes=(2, 3), dim=1"], complex=True)  # fmt: skip
def chunk(out, x, *sizes, dim=0, **ignored):
    x.g = torch.cat([piece.g for piece in out], sizes[1] if len(sizes) > 1 else dim)


@rule(torch.hsplit, samples=["r(3, 4), 2", "r(5), (1, 3)", "r(2, 3, 2), (1,)"], complex=True)
def hsplit(out, x, *sections, **ignored):
    x.g = torch.cat([piece.g for piece in out], min(x.ndim, 2) - 1)


@rule(torch.vsplit, samples=["r(4, 3), 2", "r(4, 3), (1, 3)"], complex=True)
def vsplit(out, x, *sections, **ignored):
    x.g = torch.cat([piece.g for piece in out], 0)


@rule(torch.dsplit, samples=["r(2, 3, 4), 2", "r(2, 3, 4), (1, 3)"], complex=True)
def dsplit(out, x, *sections, **ignored):
    x.g = torch.cat([piece.g for piece in out], 2)


@rule(torch.unbind, samples=["r(3, 4)", "r(3, 4), 1"], complex=True)
def unbind(out, x, dim=0):
    x.g = torch.stack([piece.g for piece in out], dim)


@rule(
    torch.atleast_1d,
    torch.atleast_2d,
    torch.atleast_3d,
    samples=["r(3)", "r()", "r(2, 3)", "r(3), r(), r(2, 3)"],
    complex=True,
)
def atleast(out, *tensors):
    for x, y in _pairs(tensors, out):
        x.g = y.g.reshape(x.shape)


@rule(torch.broadcast_tensors, samples=["r(3, 1), r(4)", "r(3, 1), r(2, 1, 4), r()"], complex=True)
def broadcast_tensors(out, *tensors):
    for x, y in _pairs(tensors, out):
        x.g = y.g


@rule(
    torch.meshgrid,
    samples=[
        "r(3), r(4), indexing='ij'",
        "r(3), r(4), r(2), indexing='xy'",
        "[r(3), r(), r(2)], indexing='ij'",
        "r(3), indexing='xy'",
    ],
    complex=True,
)
def meshgrid(out, *tensors, indexing="ij"):
    pairs = _pairs(tensors, out)
    for axis, (x, y) in enumerate(pairs):
        own = 1 - axis if indexing == "xy" and axis < 2 <= len(pairs) else axis
        others = tuple(a for a in range(len(pairs)) if a != own)
        g = y.g.sum(others if len(others) > 1 else others[0]) if others else y.g
        x.g = g if x.ndim else g.reshape(x.shape)


def _pairs(tensors, out):
    """Each tensor with what came of it, whether they were given one by one or in a list."""
    tensors = tensors[0] if isinstance(tensors[0], tuple | list) else tensors
    return list(zip(tensors, out if isinstance(out, tuple) else (out,), strict=True))


@opening(torch.cartesian_prod)
def cartesian_prod(*tensors):
    if len(tensors) == 1:
        return tensors[0]
    return torch.stack([x.flatten() for x in torch.meshgrid(*tensors, indexing="ij")], -1)


@rule(torch.combinations, samples=["r(4)", "r(4), 3", "r(3), r=2, with_replacement=True", "r(2), 3"], complex=True,
      note="each element gets the sum over the rows that it stands in")  # fmt: skip
def combinations(out, x, r=2, with_replacement=False):
    places = torch.combinations(torch.arange(x.shape[0], device=x.device), r, with_replacement)
    x.g = torch.zeros_like(x).put(places, out.g, accumulate=True)
