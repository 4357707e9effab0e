"""Views and copies: the numbers stay, the shape changes, and backward it changes back."""

import torch

from chainrule.rules.book import opening, rule


@rule(torch.reshape, torch.Tensor.view, samples=["r(2, 6), (3, 4)", "r(2, 6), (-1,)"], complex=True)
@rule(torch.Tensor.reshape_as, samples=["r(2, 6), r(3, 4)"], complex=True)
@rule(
    torch.flatten, samples=["r(2, 3, 4)", "r(2, 3, 4), 1", "r(2, 3, 4), start_dim=1, end_dim=-1", "r()"], complex=True
)
@rule(torch.squeeze, samples=["r(2, 1, 3, 1)", "r(2, 1, 3), 1", "r(2, 3), 0", "r(1, 2, 1), dim=(0, 2)"], complex=True)
@rule(torch.unflatten, samples=["r(6, 2), 0, (2, 3)", "r(6, 2), dim=0, sizes=(3, -1)"], complex=True)
@rule(torch.ravel, samples=["r(2, 3)", "r()"], complex=True)
def reshape(out, x, *shape, **ignored):
    x.g = out.g.reshape(x.shape)
    _only_the_shape(shape)


@rule(torch.unsqueeze, samples=["r(3, 4), 0", "r(3, 4), -1", "r(3, 4), dim=1"], complex=True)
def unsqueeze(out, x, dim):
    x.g = out.g.squeeze(dim)


@rule(torch.transpose, samples=["r(3, 4), 0, 1", "r(2, 3, 4), -1, 0", "r(2, 3, 4), dim0=1, dim1=2"], complex=True)
def transpose(out, x, dim0, dim1):
    x.g = out.g.transpose(dim0, dim1)


@rule(torch.permute, samples=["r(2, 3, 4), (2, 0, 1)", "r(2, 3, 4), (0, -1, 1)", "r(2, 3), dims=(1, 0)"], complex=True)
def permute(out, x, *dims, **named):
    order = _numbers(dims, named)
    back = [0] * len(order)
    for position, axis in enumerate(order):
        back[axis % x.ndim] = position
    x.g = out.g.permute(tuple(back))


def _numbers(given, named):
    """The numbers of f(x, 2, 3), of f(x, (2, 3)) and of f(x, dims=(2, 3))."""
    given = next(iter(named.values()), given)
    given = given[0] if given and isinstance(given[0], tuple | list) else given
    return tuple(given)


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
@rule(torch.Tensor.expand_as, samples=["r(3, 1), r(3, 4)"], complex=True)
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
@rule(torch.tile, samples=["r(3, 4), (2, 3)", "r(4), (2, 3)", "r(3, 4), (2,)", "r(2, 3), dims=(1, 2)", "r(2, 3), ()"], complex=True)  # fmt: skip
def repeat(out, x, *times, **named):
    times = _numbers(times, named)
    lead = len(times) - x.ndim
    times = (1,) * -lead + times  # tile may name the last axes only
    split, copies = [], []
    for axis, n in enumerate(times, x.ndim - len(times)):
        if axis < 0 or n != 1:
            copies.append(len(split))
            split.append(n)
        if axis >= 0:
            split.append(x.shape[axis])
    x.g = out.g.reshape(tuple(split)).sum(copies[0] if len(copies) == 1 else tuple(copies)) if copies else out.g


@rule(torch.repeat_interleave, samples=["r(3, 4), 2", "r(3, 4), 2, 1", "r(3, 4), torch.tensor([1, 0, 2]), dim=0", "r(), repeats=2",
                                        "r(3, 2), torch.tensor([2]), -1", "r(3), torch.tensor([1, 3, 2]), output_size=6"],
      complex=True, note="each element gets the sum over its copies")  # fmt: skip
def repeat_interleave(out, x, repeats, dim=None, output_size=None):
    flat, axis = (x.flatten(), 0) if dim is None else (x, dim % max(x.ndim, 1))
    if isinstance(repeats, torch.Tensor):
        origin = torch.arange(flat.shape[axis], device=x.device).repeat_interleave(repeats)
        g = torch.zeros_like(flat).index_add(axis, origin, out.g)
    else:
        g = out.g.unflatten(axis, (flat.shape[axis], repeats)).sum(axis + 1)
    x.g = g.reshape(x.shape) if dim is None else g


@rule(torch.flip, samples=["r(3, 4), (0, 1)", "r(5), (0,)", "r(3, 4), dims=(1,)", "r(3), dims=()"], complex=True)
def flip(out, x, *dims, **named):
    dims = _numbers(dims, named)
    x.g = out.g.flip(*dims) if dims else out.g


@rule(torch.fliplr, samples=["r(3, 4)"], complex=True)
def fliplr(out, x):
    x.g = out.g.fliplr()


@rule(torch.flipud, samples=["r(3, 4)", "r(5)"], complex=True)
def flipud(out, x):
    x.g = out.g.flipud()


@rule(
    torch.rot90, samples=["r(3, 4)", "r(3, 4), -1", "r(2, 3, 4), 3, (1, 2)", "r(3, 4), k=2, dims=(1, 0)"], complex=True
)
def rot90(out, x, k=1, dims=(0, 1)):
    x.g = out.g.rot90(-k, dims)


@rule(torch.roll, samples=["r(3, 4), 1, 0", "r(3, 4), (1, 2), (0, 1)", "r(3, 4), 5"], complex=True)
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
    torch.alias_copy,
    samples=["r(3, 4)"],
    note="back in the argument's own dtype",
    complex=True,
)
@rule(torch.Tensor.to, torch.Tensor.type, samples=["r(3, 4), torch.float32"], complex=True)
@rule(torch.Tensor.type_as, samples=["r(3, 4), r(3).float()"], complex=True)
def copied(out, x, *how, **ignored):
    x.g = out.g
    _only_the_shape(how)


@opening(torch.Tensor.cuda)
def cuda(x, device="cuda", non_blocking=False, **how):
    how |= {"non_blocking": True} if non_blocking else {}
    return x.to("cuda" if device is None else device, **how)


@opening(torch.Tensor.chalf)
def chalf(x, **how):
    return x.to(torch.complex32, **how)


def _only_the_shape(others):
    """Of these arguments only shape or dtype matter: no gradient passes to their values."""
    for other in others:
        if isinstance(other, torch.Tensor):
            other.g = None
