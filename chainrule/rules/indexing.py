"""Picking elements: the gradient goes back to where they were picked from, and adds up where one was picked twice."""

import torch

from chainrule.recording.indices import FULL, is_full, is_one, parted, put, put_back, taken, without_new_axes
from chainrule.rules.book import assume_size, rule


@rule(
    torch.Tensor.__getitem__,
    samples=["r(3, 4), 1", "r(3, 1), (slice(None), 0)", "r(5, 4), slice(1, 3)", "r(5, 4), (slice(None), slice(0, 4, 2))", "r(3, 4), None",
             "r(3, 4), (slice(None), None)", "r(3, 4), (..., 2)", "r(2, 3, 4), (1, slice(1, None))", "r(3, 4), m(3, 4)", "r(3, 4), m(3)",
             "r(5, 4), i(5, 7)", "r(5, 4), (i(5, 3), i(4, 3))", "r(3, 4), (slice(None), i(4, 5))", "r(5, 4), [0, 2, 2]", "r(3, 4), (range(3), i(4, 3))",
             "r(3, 4, 2), (slice(1, None), i(4, 6))", "r(2, 3, 4), (0, i(3, 2))", "r(1, 4), 0", "r(2, 3, 4), (i(2, 2), slice(None), i(4, 2))", "r(2, 3, 4), (m(2, 3), 0)", "r(2, 3), (1, 2)", "r(1, 3, 1), (0, slice(None), 0)"],
    note="an element that is picked twice gets both gradients", complex=True)  # fmt: skip
def getitem(out, x, index):
    first, places = parted(index, x)
    if not places:
        x.g = _put_back(out.g, x, first)
        return
    picked = put(torch.zeros_like(taken(x, first)), places, out.g, accumulate=True)
    x.g = _put_back(picked, x, first)


def _put_back(g, x, first):
    """`g` at the place of x[first] among zeros, for integers, slices and None."""
    g, first = without_new_axes(g, first)
    while not all(is_full(i) for i in first):
        ones = [axis for axis, i in enumerate(first) if is_one(i) and int(x.shape[axis]) == 1]
        if ones and all(axis in ones or is_full(i) for axis, i in enumerate(first)):
            for axis in ones:
                assume_size(x, axis, 1)
            return g[tuple(None if axis in ones else FULL for axis in range(ones[-1] + 1))]
        g, first = put_back(g, x, first, torch.zeros_like)
    return g


@rule(torch.select, samples=["r(3, 4), 0, 1", "r(3, 4), -1, -2"], complex=True)
def select(out, x, dim, index):
    x.g = torch.select_scatter(torch.zeros_like(x), out.g, dim, index)


@rule(
    torch.narrow,
    samples=["r(5, 4), 0, 1, 3", "r(5, 4), 1, 0, 2", "r(5, 4), 0, 0, 5", "r(5, 4), 0, -2, 2"],
    complex=True,
)
def narrow(out, x, dim, start, length):
    end = start + length if start >= 0 or start + length < 0 else None
    x.g = torch.slice_scatter(torch.zeros_like(x), out.g, dim, start, end)


@rule(torch.ops.aten.slice, torch.slice_copy, samples=["r(5, 4)", "r(5, 4), 0, -3, -1", "r(5, 4), dim=1, start=1, end=4, step=2"], complex=True)  # fmt: skip
def slice_(out, x, dim=0, start=None, end=None, step=1):
    x.g = torch.slice_scatter(torch.zeros_like(x), out.g, dim, start, end, step)


@rule(torch.gather, samples=["r(3, 4), 1, i(4, 3, 2)", "r(3, 4), 0, i(3, 2, 4)"], complex=True)
def gather(out, x, dim, index, sparse_grad=False):
    x.g = torch.zeros_like(x).scatter_add(dim, index, out.g)


@rule(torch.take_along_dim, samples=["r(3, 4), i(4, 3, 2), 1", "r(1, 4), i(4, 3, 2), 1", "r(3, 4), i(4, 1, 2), 1", "r(3, 4), i(12, 5)",
                                     "r(3, 4), i(4, 3, 2) - 4, 1"], complex=True)  # fmt: skip
def take_along_dim(out, x, indices, dim=None):
    if dim is None:
        flat = torch.zeros_like(x).flatten()
        x.g = flat.scatter_add(0, indices.flatten() % x.numel(), out.g).reshape(x.shape)
        return
    zeros = torch.zeros_like(x)
    if any(int(x.shape[a]) != int(out.shape[a]) for a in range(x.ndim) if a != dim % x.ndim):
        zeros = zeros.expand([x.shape[a] if a == dim % x.ndim else out.shape[a] for a in range(x.ndim)])
    if any(int(indices.shape[a]) != int(out.shape[a]) for a in range(x.ndim)):
        indices = indices.expand(out.shape)
    x.g = zeros.scatter_add(dim, indices % x.shape[dim], out.g)  # indices may count from the end


@rule(torch.take, samples=["r(3, 4), i(12, 5)", "r(3, 4), i(12, 2, 3) - 12", "r(), i(1, 3)"], complex=True)
def take(out, x, index):
    x.g = torch.zeros_like(x).put(index, out.g, accumulate=True)


@rule(torch.index_select, samples=["r(5, 4), 0, i(5, 7)", "r(5, 4), 1, i(4, 2)"], complex=True)
def index_select(out, x, dim, index):
    x.g = torch.zeros_like(x).index_add(dim, index, out.g)


@rule(
    torch.masked_select,
    samples=["r(3, 4), m(3, 4)", "r(3, 4), m(4)", "r(4), m(3, 4)", "r(3, 4), torch.tensor(True)"],
    complex=True,
)
def masked_select(out, x, mask):
    x.g = torch.zeros_like(x).masked_scatter(mask, out.g)


@rule(torch.ops.aten._unsafe_masked_index, samples=["r(5, 4), m(3), (i(5, 3), i(4, 3)), 2.0", "r(5, 4), m(3, 1), [i(5, 3)], 0.0"],
      note="torch's x[indices] where the mask is true; elsewhere indices may point outside", complex=True)  # fmt: skip
def _unsafe_masked_index(out, x, mask, indices, fill):
    x.g = torch.ops.aten._unsafe_masked_index_put_accumulate(torch.zeros_like(x), mask, indices, out.g)
