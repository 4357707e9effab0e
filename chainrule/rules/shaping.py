"""Views and copies: the numbers stay, the shape changes, and backward it changes back."""

import torch

from chainrule.rules.book import rule


@rule(torch.reshape, torch.Tensor.view, samples=["r(2, 6), (3, 4)", "r(2, 6), (-1,)"], complex=True)
@rule(torch.Tensor.reshape_as, samples=["r(2, 6), r(3, 4)"], complex=True)
@rule(torch.flatten, samples=["r(2, 3, 4)", "r(2, 3, 4), 1", "r()"], complex=True)
@rule(torch.squeeze, samples=["r(2, 1, 3, 1)", "r(2, 1, 3), 1", "r(2, 3), 0"], complex=True)
@rule(torch.unflatten, samples=["r(6, 2), 0, (2, 3)"], complex=True)
@rule(torch.ravel, torch.atleast_1d, torch.atleast_2d, samples=["r(3)", "r()"], complex=True)
def reshape(out, x, *shape, **ignored):
    x.g = out.g.reshape(x.shape)
    _only_the_shape(shape)


@rule(torch.unsqueeze, samples=["r(3, 4), 0", "r(3, 4), -1", "r(3, 4), dim=1"], complex=True)
def unsqueeze(out, x, dim):
    x.g = out.g.squeeze(dim)


@rule(torch.transpose, samples=["r(3, 4), 0, 1", "r(2, 3, 4), -1, 0"], complex=True)
def transpose(out, x, dim0, dim1):
    x.g = out.g.transpose(dim0, dim1)


@rule(torch.permute, samples=["r(2, 3, 4), (2, 0, 1)", "r(2, 3, 4), (0, -1, 1)"], complex=True)
def permute(out, x, *dims, **named):
    order = named.get("dims", dims)
    order = order[0] if isinstance(order[0], tuple | list) else order
    back = [0] * len(order)
    for position, axis in enumerate(order):
        back[axis % x.ndim] = position
    x.g = out.g.permute(tuple(back))


@rule(torch.movedim, samples=["r(2, 3, 4), 0, 2", "r(2, 3, 4), (0, 1), (2, 0)"], complex=True)
def movedim(out, x, source, destination):
    x.g = out.g.movedim(destination, source)


@rule(torch.t, torch.Tensor.T, samples=["r(3, 4)"], complex=True)
def t(out, x):
    x.g = out.g.T


@rule(torch.Tensor.mT, samples=["r(3, 4)", "r(2, 3, 4)"], complex=True)
def mT(out, x):
    x.g = out.g.mT


@rule(
    torch.Tensor.expand,
    torch.broadcast_to,
    samples=["r(3, 1), (3, 4)", "r(4), (2, 3, 4)"],
    note="the sum over the stretched axes is taken for all rules in one place",
    complex=True,
)
@rule(torch.Tensor.expand_as, samples=["r(3, 1), r(3, 4)"], complex=True)  # fmt: skip
def expand(out, x, *shape, **ignored):
    x.g = out.g
    _only_the_shape(shape)


@rule(torch.Tensor.sum_to_size, samples=["r(2, 3, 4), (1, 4)", "r(3, 4), (3, 1)"], complex=True)
def sum_to_size(out, x, *shape):
    g = out.g
    while g.ndim < x.ndim:
        g = g.unsqueeze(0)
    x.g = g.expand(x.shape)


@rule(torch.Tensor.repeat, samples=["r(3, 4), (2, 3)", "r(4), (2, 3)", "r(3, 1), (1, 2)"], complex=True)
def repeat(out, x, *times, **named):
    times = named.get("repeats", times)
    times = times[0] if isinstance(times[0], tuple | list) else times
    lead = len(times) - x.ndim
    split, copies = [], []
    for axis, n in enumerate(times):
        copies.append(len(split))
        split += [n] if axis < lead else [n, x.shape[axis - lead]]
    x.g = out.g.reshape(tuple(split)).sum(tuple(copies))


@rule(
    torch.cat,
    samples=["[r(2, 3), r(4, 3)], 0", "[r(2, 3), r(2, 1), r(2, 2)], dim=1", "[r(2, 3), r(4, 3)]"],
    complex=True,
)
def cat(out, tensors, dim=0):
    start = 0
    for x in tensors:
        x.g = out.g.narrow(dim, start, x.shape[dim])
        start = x.shape[dim] + start


@rule(torch.stack, samples=["[r(2, 3), r(2, 3)], 0", "[r(3), r(3), r(3)], dim=-1", "[r(3), r(3)]"], complex=True)
def stack(out, tensors, dim=0):
    for i, x in enumerate(tensors):
        x.g = out.g.select(dim, i)


@rule(torch.chunk, torch.tensor_split, samples=["r(3, 4), 2, 1", "r(5), 2"], complex=True)
@rule(torch.split, samples=["r(5, 2), (2, 3)", "r(3, 4), 3, dim=1"], complex=True)
@rule(torch.split_with_sizes, samples=["r(5, 2), (2, 3)"], complex=True)
def chunk(out, x, *sizes, dim=0, **ignored):
    x.g = torch.cat([piece.g for piece in out], sizes[1] if len(sizes) > 1 else dim)


@rule(torch.unbind, samples=["r(3, 4)", "r(3, 4), 1"], complex=True)
def unbind(out, x, dim=0):
    x.g = torch.stack([piece.g for piece in out], dim)


@rule(torch.flip, samples=["r(3, 4), (0, 1)", "r(5), (0,)"], complex=True)
def flip(out, x, *dims, **named):
    dims = named.get("dims", dims)
    x.g = out.g.flip(dims[0] if isinstance(dims[0], tuple | list) else dims)


@rule(torch.roll, samples=["r(3, 4), 1, 0", "r(3, 4), (1, 2), (0, 1)"], complex=True)
def roll(out, x, shifts, dims=None):
    back = tuple(-s for s in shifts) if isinstance(shifts, tuple | list) else -shifts
    x.g = out.g.roll(back) if dims is None else out.g.roll(back, dims)


@rule(
    torch.Tensor.contiguous,
    torch.clone,
    torch.Tensor.float,
    torch.Tensor.double,
    torch.Tensor.half,
    torch.Tensor.bfloat16,
    torch.Tensor.cpu,
    torch.positive,
    samples=["r(3, 4)"],
    note="back in the argument's own dtype",
    complex=True,
)
@rule(torch.Tensor.to, torch.Tensor.type, samples=["r(3, 4), torch.float32"], complex=True)
@rule(torch.Tensor.type_as, samples=["r(3, 4), r(3).float()"], complex=True)  # fmt: skip
def copied(out, x, *how, **ignored):
    x.g = out.g
    _only_the_shape(how)


def _only_the_shape(others):
    """Of these arguments only shape or dtype matter: no gradient passes to their values."""
    for other in others:
        if isinstance(other, torch.Tensor):
            other.g = None


@rule(torch.tril, samples=["r(3, 4)", "r(4, 4), -1"], complex=True)
def lower(out, x, diagonal=0):
    x.g = out.g.tril(diagonal)


@rule(torch.triu, samples=["r(3, 4)", "r(4, 4), 1"], complex=True)
def upper(out, x, diagonal=0):
    x.g = out.g.triu(diagonal)


@rule(torch.diagonal, samples=["r(3, 3)", "r(3, 4), 1"], complex=True)
def diagonal(out, x, offset=0, dim1=0, dim2=1):
    x.g = torch.diagonal_scatter(torch.zeros_like(x), out.g, offset, dim1, dim2)


@rule(torch.diagonal_scatter, samples=["r(3, 3), r(3)"], complex=True)
def diagonal_scatter(out, x, src, offset=0, dim1=0, dim2=1):
    x.g = torch.diagonal_scatter(out.g, torch.zeros_like(src), offset, dim1, dim2)
    src.g = out.g.diagonal(offset, dim1, dim2)
