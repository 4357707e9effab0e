"""Picking elements: the gradient goes back to where they were picked from, and adds up where one was picked twice."""

import torch

from chainrule.rules.book import assume_size, rule

FULL = slice(None)
_PICKS = (torch.Tensor, list, range)


@rule(
    torch.Tensor.__getitem__,
    samples=["r(3, 4), 1", "r(3, 1), (slice(None), 0)", "r(5, 4), slice(1, 3)", "r(5, 4), (slice(None), slice(0, 4, 2))", "r(3, 4), None",
             "r(3, 4), (slice(None), None)", "r(3, 4), (..., 2)", "r(2, 3, 4), (1, slice(1, None))", "r(3, 4), m(3, 4)", "r(3, 4), m(3)",
             "r(5, 4), i(5, 7)", "r(5, 4), (i(5, 3), i(4, 3))", "r(3, 4), (slice(None), i(4, 5))", "r(5, 4), [0, 2, 2]", "r(3, 4), (range(3), i(4, 3))",
             "r(3, 4, 2), (slice(1, None), i(4, 6))", "r(2, 3, 4), (0, i(3, 2))", "r(1, 4), 0", "r(2, 3), (1, 2)", "r(1, 3, 1), (0, slice(None), 0)"],
    note="an element that is picked twice gets both gradients",
)  # fmt: skip
def getitem(out, x, index):
    index = _complete(index if isinstance(index, tuple) else (index,), x.ndim)
    if index is None:
        return NotImplemented
    index = tuple(list(i) if isinstance(i, range | tuple) else i for i in index)
    if any(isinstance(i, _PICKS) for i in index):
        return _picked_by_tensors(out.g, x, index)
    x.g = _put_back(_without_new_axes(out.g, index), x, [i for i in index if i is not None])
    return None


def _complete(index, ndim):
    """The index with its ellipsis written out and an entry for every axis."""
    consumed = 0
    for i in index:
        boolean = isinstance(i, bool) or (
            isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) and i.ndim == 0
        )
        if boolean:
            return None
        consumed += (
            i.ndim
            if isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)
            else i is not None and i is not ...
        )
    at = next((k for k, i in enumerate(index) if i is ...), len(index))
    return (*index[:at], *(FULL,) * (ndim - consumed), *index[at + 1 :])


def _without_new_axes(g, index):
    """`g` without the axes that `None` added (integers leave no axis in g)."""
    axis, added = 0, []
    for i in index:
        if i is None:
            added.append(axis)
        axis += not _whole(i)
    for a in reversed(added):
        g = g.squeeze(a)
    return g


def _whole(i):
    return isinstance(i, int)


def _put_back(g, x, index):
    """`g` at the place of x[index] among zeros, for integers and slices, one entry for each axis."""
    ones = [axis for axis, i in enumerate(index) if _whole(i) and int(x.shape[axis]) == 1]
    if ones and all((_whole(i) and int(x.shape[axis]) == 1) or i == FULL for axis, i in enumerate(index)):
        for axis in ones:
            assume_size(x, axis, 1)
        return g[tuple(None if axis in ones else FULL for axis in range(ones[-1] + 1))]
    partial = [axis for axis, i in enumerate(index) if i != FULL]
    if not partial:
        return g
    last = partial[-1]
    outer = x[tuple(FULL if axis == last else i for axis, i in enumerate(index))] if len(partial) > 1 else x
    at = last - len([i for i in index[:last] if _whole(i)])
    zeros = torch.zeros_like(outer)
    if _whole(index[last]):
        g = torch.select_scatter(zeros, g, at, index[last])
    else:
        s = index[last]
        step = () if s.step in (None, 1) else (s.step,)
        g = torch.slice_scatter(zeros, g, at, s.start, s.stop, *step)
    return _put_back(g, x, [FULL if axis == last else i for axis, i in enumerate(index)])


def _picked_by_tensors(g, x, index):
    if any(i is None for i in index):
        return NotImplemented
    basic = [axis for axis, i in enumerate(index) if isinstance(i, int | slice) and i != FULL]
    lead = len([i for i in index if isinstance(i, int)])
    if any(isinstance(i, int) for i in index[lead:]) or (
        basic and any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in index)
    ):
        return NotImplemented
    first = [FULL if isinstance(i, _PICKS) else i for i in index]
    inner = x[tuple(first)] if basic else x
    places = tuple(_as_index(i) for i in index[lead:])
    while places[-1] is None:
        places = places[:-1]
    picked = _put(torch.zeros_like(inner), places, g, accumulate=True)
    x.g = _put_back(picked, x, first) if basic else picked
    return None


def _put(x, places, values, accumulate=False):
    if any(i is None for i in places):  # torch.index_put wants an index for every axis before the last
        return torch.ops.aten.index_put(x, places, values, accumulate)
    return torch.index_put(x, places, values, accumulate=True) if accumulate else torch.index_put(x, places, values)


def _as_index(i):
    if isinstance(i, torch.Tensor):
        return i
    return torch.tensor(list(i)) if isinstance(i, _PICKS) else None


@rule(
    torch.index_put,
    samples=[
        "r(5, 4), (i(5, 3),), r(3, 4), True",
        "r(5, 4), (torch.tensor([0, 2]),), r(2, 4)",
        "r(3, 4), (m(3, 4),), r()",
    ],
)
def index_put(out, x, indices, values, accumulate=False):
    where = tuple(FULL if i is None else i for i in indices)
    x.g = out.g if accumulate else _put(out.g, indices, torch.zeros_like(values))
    values.g = out.g[where if len(where) > 1 else where[0]]


@rule(torch.select, samples=["r(3, 4), 0, 1", "r(3, 4), -1, -2"])
def select(out, x, dim, index):
    x.g = torch.select_scatter(torch.zeros_like(x), out.g, dim, index)


@rule(torch.narrow, samples=["r(5, 4), 0, 1, 3", "r(5, 4), 1, 0, 2", "r(5, 4), 0, 0, 5"])
def narrow(out, x, dim, start, length):
    x.g = torch.slice_scatter(torch.zeros_like(x), out.g, dim, start, start + length)


@rule(torch.select_scatter, samples=["r(3, 4), r(4), 0, 1"])
def select_scatter(out, x, src, dim, index):
    x.g = torch.select_scatter(out.g, torch.zeros_like(src), dim, index)
    src.g = out.g.select(dim, index)


@rule(torch.slice_scatter, samples=["r(5, 4), r(2, 4), 0, 1, 3", "r(5, 4), r(5, 2), 1, 0, 4, 2"])
def slice_scatter(out, x, src, dim=0, start=None, end=None, step=1):
    x.g = torch.slice_scatter(out.g, torch.zeros_like(src), dim, start, end, step)
    src.g = out.g[(*(FULL,) * (dim % x.ndim), slice(start, end, step))]


@rule(torch.gather, samples=["r(3, 4), 1, i(4, 3, 2)", "r(3, 4), 0, i(3, 2, 4)"])
def gather(out, x, dim, index, sparse_grad=False):
    x.g = torch.zeros_like(x).scatter_add(dim, index, out.g)


@rule(torch.take_along_dim, samples=["r(3, 4), i(4, 3, 2), 1", "r(1, 4), i(4, 3, 2), 1", "r(3, 4), i(4, 1, 2), 1"])
def take_along_dim(out, x, indices, dim=None):
    if dim is None:
        return NotImplemented
    zeros = torch.zeros_like(x)
    if any(int(x.shape[a]) != int(out.shape[a]) for a in range(x.ndim) if a != dim % x.ndim):
        zeros = zeros.expand([x.shape[a] if a == dim % x.ndim else out.shape[a] for a in range(x.ndim)])
    if any(int(indices.shape[a]) != int(out.shape[a]) for a in range(x.ndim)):
        indices = indices.expand(out.shape)
    x.g = zeros.scatter_add(dim, indices, out.g)
    return None


@rule(torch.scatter_add, samples=["r(3, 4), 1, i(4, 3, 2), r(3, 2)"])
def scatter_add(out, x, dim, index, src):
    x.g = out.g
    src.g = out.g.gather(dim, index)


@rule(
    torch.scatter,
    samples=["r(3, 4), 1, torch.tensor([[0, 2], [1, 3], [0, 1]]), r(3, 2)", "r(3, 4), 1, i(4, 3, 1), 2.0"],
)
def scatter(out, x, dim, index, src, reduce=None):
    if reduce is not None:
        return NotImplemented
    x.g = out.g.scatter(dim, index, 0)
    if isinstance(src, torch.Tensor):
        src.g = out.g.gather(dim, index)
    return None


@rule(torch.index_select, samples=["r(5, 4), 0, i(5, 7)", "r(5, 4), 1, i(4, 2)"])
def index_select(out, x, dim, index):
    x.g = torch.zeros_like(x).index_add(dim, index, out.g)


@rule(torch.index_add, samples=["r(5, 4), 0, i(5, 7), r(7, 4)", "r(5, 4), 1, i(4, 2), r(5, 2), alpha=2"])
def index_add(out, x, dim, index, source, alpha=1):
    x.g = out.g
    source.g = out.g.index_select(dim, index) if alpha == 1 else alpha * out.g.index_select(dim, index)


@rule(
    torch.masked_fill,
    samples=["r(3, 4), m(3, 4), 0.0", "r(3, 4), m(4), -1e9", "r(3, 4), m(3, 1), r()"],
    elementwise=True,
)
def masked_fill(out, x, mask, value):
    x.g = out.g.masked_fill(mask, 0)
    if isinstance(value, torch.Tensor):
        value.g = (out.g * mask).sum()


@rule(torch.masked_select, samples=["r(3, 4), m(3, 4)"])
def masked_select(out, x, mask):
    x.g = torch.index_put(torch.zeros_like(x), (mask,), out.g, accumulate=True)
