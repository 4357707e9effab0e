"""Views and copies: the numbers stay, the shape changes, and backward it changes back."""

import torch

from chainrule.rules.book import rule


@rule(torch.reshape, torch.Tensor.view, samples=["r(2, 6), (3, 4)", "r(2, 6), (-1,)"])
@rule(torch.Tensor.reshape_as, samples=["r(2, 6), r(3, 4)"])
@rule(torch.flatten, samples=["r(2, 3, 4)", "r(2, 3, 4), 1", "r()"])
@rule(torch.squeeze, samples=["r(2, 1, 3, 1)", "r(2, 1, 3), 1", "r(2, 3), 0"])
@rule(torch.unflatten, samples=["r(6, 2), 0, (2, 3)"])
@rule(torch.ravel, torch.atleast_1d, torch.atleast_2d, samples=["r(3)", "r()"])
def reshape(out, x, *shape, **ignored):
    x.g = out.g.reshape(x.shape)
    _only_the_shape(shape)


@rule(torch.unsqueeze, samples=["r(3, 4), 0", "r(3, 4), -1", "r(3, 4), dim=1"])
def unsqueeze(out, x, dim):
    x.g = out.g.squeeze(dim)


@rule(torch.transpose, samples=["r(3, 4), 0, 1", "r(2, 3, 4), -1, 0"])
def transpose(out, x, dim0, dim1):
    x.g = out.g.transpose(dim0, dim1)


@rule(torch.permute, samples=["r(2, 3, 4), (2, 0, 1)", "r(2, 3, 4), (0, -1, 1)"])
def permute(out, x, *dims, **named):
    order = named.get("dims", dims)
    order = order[0] if isinstance(order[0], tuple | list) else order
    back = [0] * len(order)
    for position, axis in enumerate(order):
        back[axis % x.ndim] = position
    x.g = out.g.permute(tuple(back))


@rule(torch.movedim, samples=["r(2, 3, 4), 0, 2", "r(2, 3, 4), (0, 1), (2, 0)"])
def movedim(out, x, source, destination):
    x.g = out.g.movedim(destination, source)


@rule(torch.t, torch.Tensor.T, samples=["r(3, 4)"])
def t(out, x):
    x.g = out.g.T


@rule(torch.Tensor.mT, samples=["r(3, 4)", "r(2, 3, 4)"])
def mT(out, x):
    x.g = out.g.mT


@rule(
    torch.Tensor.expand,
    torch.broadcast_to,
    samples=["r(3, 1), (3, 4)", "r(4), (2, 3, 4)"],
    note="the sum over the stretched axes is taken for all rules in one place",
)
@rule(torch.Tensor.expand_as, samples=["r(3, 1), r(3, 4)"])  # fmt: skip
def expand(out, x, *shape, **ignored):
    x.g = out.g
    _only_the_shape(shape)


@rule(torch.Tensor.sum_to_size, samples=["r(2, 3, 4), (1, 4)", "r(3, 4), (3, 1)"])
def sum_to_size(out, x, *shape):
    g = out.g
    while g.ndim < x.ndim:
        g = g.unsqueeze(0)
    x.g = g.expand(x.shape)


@rule(torch.Tensor.repeat, samples=["r(3, 4), (2, 3)", "r(4), (2, 3)", "r(3, 1), (1, 2)"])
def repeat(out, x, *times, **named):
    times = named.get("repeats", times)
    times = times[0] if isinstance(times[0], tuple | list) else times
    lead = len(times) - x.ndim
    split, copies = [], []
    for axis, n in enumerate(times):
        copies.append(len(split))
        split += [n] if axis < lead else [n, x.shape[axis - lead]]
    x.g = out.g.reshape(tuple(split)).sum(tuple(copies))


@rule(torch.cat, samples=["[r(2, 3), r(4, 3)], 0", "[r(2, 3), r(2, 1), r(2, 2)], dim=1", "[r(2, 3), r(4, 3)]"])
def cat(out, tensors, dim=0):
    start = 0
    for x in tensors:
        x.g = out.g.narrow(dim, start, x.shape[dim])
        start = x.shape[dim] + start


@rule(torch.stack, samples=["[r(2, 3), r(2, 3)], 0", "[r(3), r(3), r(3)], dim=-1", "[r(3), r(3)]"])
def stack(out, tensors, dim=0):
    for i, x in enumerate(tensors):
        x.g = out.g.select(dim, i)


@rule(torch.chunk, torch.tensor_split, samples=["r(3, 4), 2, 1", "r(5), 2"])
@rule(torch.split, samples=["r(5, 2), (2, 3)", "r(3, 4), 3, dim=1"])
@rule(torch.split_with_sizes, samples=["r(5, 2), (2, 3)"])
def chunk(out, x, *sizes, dim=0, **ignored):
    x.g = torch.cat([piece.g for piece in out], sizes[1] if len(sizes) > 1 else dim)


@rule(torch.unbind, samples=["r(3, 4)", "r(3, 4), 1"])
def unbind(out, x, dim=0):
    x.g = torch.stack([piece.g for piece in out], dim)


@rule(torch.flip, samples=["r(3, 4), (0, 1)", "r(5), (0,)"])
def flip(out, x, *dims, **named):
    dims = named.get("dims", dims)
    x.g = out.g.flip(dims[0] if isinstance(dims[0], tuple | list) else dims)


@rule(torch.roll, samples=["r(3, 4), 1, 0", "r(3, 4), (1, 2), (0, 1)"])
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
)
@rule(torch.Tensor.to, torch.Tensor.type, samples=["r(3, 4), torch.float32"])
@rule(torch.Tensor.type_as, samples=["r(3, 4), r(3).float()"])  # fmt: skip
def copied(out, x, *how, **ignored):
    x.g = out.g
    _only_the_shape(how)


def _only_the_shape(others):
    """Of these arguments only shape or dtype matter: no gradient passes to their values."""
    for other in others:
        if isinstance(other, torch.Tensor):
            other.g = None


@rule(torch.tril, samples=["r(3, 4)", "r(4, 4), -1"])
def lower(out, x, diagonal=0):
    x.g = out.g.tril(diagonal)


@rule(torch.triu, samples=["r(3, 4)", "r(4, 4), 1"])
def upper(out, x, diagonal=0):
    x.g = out.g.triu(diagonal)


@rule(torch.diagonal, samples=["r(3, 3)", "r(3, 4), 1"])
def diagonal(out, x, offset=0, dim1=0, dim2=1):
    x.g = torch.diagonal_scatter(torch.zeros_like(x), out.g, offset, dim1, dim2)


@rule(torch.diagonal_scatter, samples=["r(3, 3), r(3)"])
def diagonal_scatter(out, x, src, offset=0, dim1=0, dim2=1):
    x.g = torch.diagonal_scatter(out.g, torch.zeros_like(src), offset, dim1, dim2)
    src.g = out.g.diagonal(offset, dim1, dim2)
