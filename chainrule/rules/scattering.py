"""Writing into places chosen by an index: what is overwritten gets no gradient, what is added gets all of it."""

import torch

from chainrule.recording.indices import FULL, put
from chainrule.rules.book import rule


@rule(
    torch.index_put,
    samples=[
        "r(5, 4), (i(5, 3),), r(3, 4), True",
        "r(5, 4), (torch.tensor([0, 2]),), r(2, 4)",
        "r(3, 4), (m(3, 4),), r()",
    ],
    complex=True,
)
def index_put(out, x, indices, values, accumulate=False):
    where = tuple(FULL if i is None else i for i in indices)
    x.g = out.g if accumulate else put(out.g, indices, torch.zeros_like(values))
    values.g = out.g[where if len(where) > 1 else where[0]]


@rule(torch.index_add, samples=["r(5, 4), 0, i(5, 7), r(7, 4)", "r(5, 4), 1, i(4, 2), r(5, 2), alpha=2"], complex=True)
def index_add(out, x, dim, index, source, alpha=1):
    x.g = out.g
    source.g = out.g.index_select(dim, index) if alpha == 1 else alpha * out.g.index_select(dim, index)


@rule(
    torch.index_copy,
    samples=[
        "r(5, 4), 0, torch.tensor([0, 3]), r(2, 4)",
        "r(5, 4), 1, torch.tensor([2]), r(5, 1)",
        "r(), 0, i(1, 1), r()",
    ],
    complex=True,
)
def index_copy(out, x, dim, index, source):
    x.g = out.g.index_fill(dim, index, 0)
    source.g = out.g.index_select(dim, index).reshape(source.shape)


@rule(
    torch.index_fill,
    samples=["r(5, 4), 0, torch.tensor([0, 3]), 2.0", "r(5, 4), 1, i(4, 3), r()", "r(), 0, i(1, 1), r()"],
    complex=True,
)
def index_fill(out, x, dim, index, value):
    x.g = out.g.index_fill(dim, index, 0)
    if isinstance(value, torch.Tensor):
        value.g = out.g.index_select(dim, index.unique()).sum()  # a row that is named twice was filled once


@rule(
    torch.Tensor.put,
    samples=[
        "r(3, 4), torch.tensor([0, 7]), r(2)",
        "r(3, 4), i(12, 2, 3), r(2, 3), True",
        "r(), i(1, 1), r(1)",
        "r(), i(1), r(1)",
    ],
    complex=True,
)
def put_(out, x, index, source, accumulate=False):
    x.g = out.g if accumulate else out.g.put(index, torch.zeros_like(source))
    source.g = out.g.take(index).reshape(source.shape)


@rule(torch.select_scatter, samples=["r(3, 4), r(4), 0, 1"], complex=True)
def select_scatter(out, x, src, dim, index):
    x.g = torch.select_scatter(out.g, torch.zeros_like(src), dim, index)
    src.g = out.g.select(dim, index)


@rule(torch.slice_scatter, samples=["r(5, 4), r(2, 4), 0, 1, 3", "r(5, 4), r(5, 2), 1, 0, 4, 2"], complex=True)
def slice_scatter(out, x, src, dim=0, start=None, end=None, step=1):
    by = () if step == 1 else (step,)
    x.g = torch.slice_scatter(out.g, torch.zeros_like(src), dim, start, end, *by)
    src.g = out.g[(*(FULL,) * (dim % x.ndim), slice(start, end, *by))]


@rule(torch.scatter_add, samples=["r(3, 4), 1, i(4, 3, 2), r(3, 2)"], complex=True)
def scatter_add(out, x, dim, index, src):
    x.g = out.g
    src.g = out.g.gather(dim, index)


@rule(
    torch.scatter,
    samples=[
        "r(3, 4), 1, torch.tensor([[0, 2], [1, 3], [0, 1]]), r(3, 2)",
        "r(3, 4), 1, i(4, 3, 1), 2.0",
        "r(3, 4), 1, i(4, 3, 1), value=2.0",
    ],
    complex=True,
)
def scatter(out, x, dim, index, src=None, reduce=None, value=None):
    if reduce is not None:
        return NotImplemented
    x.g = out.g.scatter(dim, index, 0)
    if isinstance(src, torch.Tensor):
        src.g = out.g.gather(dim, index)
    return None


@rule(
    torch.masked_fill,
    samples=["r(3, 4), m(3, 4), 0.0", "r(3, 4), m(4), -1e9", "r(3, 4), m(3, 1), r()"],
    elementwise=True,
    complex=True,
)
def masked_fill(out, x, mask, value):
    x.g = out.g.masked_fill(mask, 0)
    if isinstance(value, torch.Tensor):
        value.g = (out.g * mask).sum()


@rule(torch.masked_scatter, samples=["r(3, 4), m(3, 4), r(12)", "r(3, 4), m(4), r(4, 5)", "r(4), m(3, 4), r(12)", "r(3, 4), torch.tensor(True), r(12)"],
      note="the first elements of the source are taken, one for each true element of the mask", complex=True)  # fmt: skip
def masked_scatter(out, x, mask, source):
    x.g = out.g.masked_fill(mask, 0)
    taken = out.g.masked_select(mask)
    untaken = taken.new_zeros(source.numel() - taken.numel())
    source.g = torch.cat([taken, untaken]).reshape(source.shape)


@rule(torch.ops.aten._unsafe_masked_index_put_accumulate,
      samples=["r(5, 4), m(3), [i(5, 3), i(4, 3)], r(3)", "r(5, 4), m(3, 1), [i(5, 3)], r(3, 4)"],
      note="torch's x[indices] += values where the mask is true; elsewhere indices may point outside", complex=True)  # fmt: skip
def _unsafe_masked_index_put_accumulate(out, x, mask, indices, values):
    x.g = out.g
    values.g = torch.ops.aten._unsafe_masked_index(out.g, mask, indices, 0)


REDUCTIONS = ("sum", "mean", "prod", "amax", "amin")


@rule(
    torch.scatter_reduce,
    samples=[f"r(3, 4), 1, i(4, 3, 2), r(3, 2), '{how}'{rest}" for how in REDUCTIONS for rest in ("", ", include_self=False")]
    + ["r(3, 4) * m(3, 4), 0, i(3, 5, 4), r(5, 4) * m(5, 4), 'prod'", "i(2, 3, 4).double(), 1, i(4, 3, 4), i(2, 3, 4).double(), 'amax'"],
    note="equal extremes share the gradient; the product of the other elements is used, so that zeros are no trouble",
)  # fmt: skip
def scatter_reduce(out, x, dim, index, src, reduce, include_self=True):
    def added(x, src):
        return x.scatter_add(dim, index, src)

    def multiplied(x, src, **how):
        return x.scatter_reduce(dim, index, src, "prod", **how)

    _reduced(out, x, src, reduce, include_self, added, multiplied, lambda g: g.gather(dim, index))
    if not include_self:
        x.g = x.g.scatter(dim, index, 0)


@rule(
    torch.index_reduce,
    samples=[f"r(5, 4), 0, i(5, 7), r(7, 4), '{how}'{rest}" for how in REDUCTIONS[1:] for rest in ("", ", include_self=False")]
    + ["r(3, 4) * m(3, 4), 1, i(4, 6), r(3, 6) * m(3, 6), 'prod'", "i(2, 3, 4).double(), 1, i(4, 4), i(2, 3, 4).double(), 'amax'"],
    note="equal extremes share the gradient; the product of the other elements is used, so that zeros are no trouble",
)  # fmt: skip
def index_reduce(out, x, dim, index, source, reduce, include_self=True):
    def added(x, source):
        return x.index_add(dim, index, source)

    def multiplied(x, source, **how):
        return x.index_reduce(dim, index, source, "prod", **how)

    _reduced(out, x, source, reduce, include_self, added, multiplied, lambda g: g.index_select(dim, index))
    if not include_self:
        x.g = x.g.index_fill(dim, index, 0)


def _reduced(out, x, src, reduce, include_self, added, multiplied, at):
    """Elements of `src` met at their places in `x`: `added` and `multiplied` bring them there, `at` looks them up."""
    if reduce == "sum":
        x.g, src.g = out.g, at(out.g)
    elif reduce == "mean":
        start = torch.ones_like(x) if include_self else torch.zeros_like(x)
        met = added(start, torch.ones_like(src))
        g = out.g / (met if include_self else met.clamp_min(1))
        x.g, src.g = g, at(g)
    elif reduce == "prod":
        zero = src == 0
        others = src.masked_fill(zero, 1)
        only_zero = added(torch.zeros_like(x), zero.type_as(x)) == 1
        without_zero = multiplied(x, others, **({} if include_self else {"include_self": False})) * only_zero
        x.g = out.g * multiplied(torch.ones_like(x), src)
        src.g = torch.where(zero, at(out.g * without_zero), at(out.g * out) / others)
    else:
        mine, theirs = x == out, src == at(out)
        g = out.g / added(mine.type_as(x), theirs.type_as(x))
        x.g, src.g = g * mine, at(g) * theirs


@rule(
    torch.segment_reduce,
    samples=[f"r(7, 2), '{how}', lengths=torch.tensor([3, 0, 4]), initial=1.0" for how in ("sum", "mean", "max", "min", "prod")]
    + ["r(2), 'sum', offsets=torch.tensor([0, 1, 2])", "r(2, 5), 'max', lengths=torch.tensor([[2, 3], [4, 1]]), axis=1"],
    note="torch's own backward operation: each segment passes its gradient to its rows, as sum, mean, max, min or prod do",
)  # fmt: skip
def segment_reduce(out, x, reduce, lengths=None, indices=None, offsets=None, axis=0, unsafe=False, initial=None):
    where = {"offsets": offsets} if lengths is None else {"lengths": lengths}
    x.g = torch.ops.aten._segment_reduce_backward(out.g, out, x, reduce, **where, axis=axis, initial=initial)
