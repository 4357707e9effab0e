"""Extremes, sorting, medians, quantiles and modes: the gradient goes to the elements that were chosen."""

import torch

from chainrule.rules.book import opening, rule
from chainrule.rules.reductions import no_axes, restore
from chainrule.rules.selections import maximum as larger
from chainrule.rules.selections import minimum as smaller


def shared(g, x, value, dim, keepdim):
    """`g` on the elements of `x` that equal the extreme `value` along `dim`, in equal shares."""
    chosen = x == restore(value, x, dim, keepdim)
    ties = chosen.sum() if no_axes(dim) else chosen.sum(dim, keepdim=True)
    return restore(g, x, dim, keepdim) * chosen / ties


def at_indices(out, x, dim, keepdim=True):
    """The gradient of the values at the indices that came with them."""
    values, indices = out
    return torch.zeros_like(x).scatter(dim, restore(indices, x, dim, keepdim), restore(values.g, x, dim, keepdim))


def _shared_by_all(g, x, value):
    """`g` on the elements of `x` that equal `value`, in equal shares; on the NaN where `value` is NaN."""
    chosen = (x == value) | (x.isnan() & value.isnan())
    return chosen * (g / chosen.sum())


@rule(torch.amax, torch.amin, samples=["r(3, 4), 1", "r(3, 4), dim=(0, 1)", "r(3, 4), 0, True", "r(3, 4)", "i(3, 4, 5).double(), 1"],
      note="equal extremes share the gradient")  # fmt: skip
def amax(out, x, dim=(), keepdim=False):
    x.g = shared(out.g, x, out, dim, keepdim)


@rule(torch.aminmax, samples=["r(3, 4), dim=1", "r(3, 4)", "r(3, 4), dim=0, keepdim=True", "i(3, 4, 5).double(), dim=1"],
      note="equal extremes share the gradient")  # fmt: skip
def aminmax(out, x, dim=None, keepdim=False):
    least, most = out
    x.g = shared(least.g, x, least, dim, keepdim) + shared(most.g, x, most, dim, keepdim)


def _extreme(out, x, dim, keepdim, of_two):
    if isinstance(dim, torch.Tensor):
        of_two(out, x, dim)
    elif dim is None:
        x.g = _shared_by_all(out.g, x, out)
    else:
        x.g = at_indices(out, x, dim, keepdim)


@rule(torch.max, samples=["r(3, 4)", "r(3, 4), 1", "r(3, 4), dim=0, keepdim=True", "r(3, 4), r(4)", "i(3, 4, 5).double()"],
      note="over all elements, equal maxima share the gradient; along an axis it goes to the index that is given")  # fmt: skip
def max(out, x, dim=None, keepdim=False):
    _extreme(out, x, dim, keepdim, larger)


@rule(torch.min, samples=["r(3, 4)", "r(3, 4), 1", "r(3, 4), dim=0, keepdim=True", "r(3, 4), r(4)"],
      note="over all elements, equal minima share the gradient; along an axis it goes to the index that is given")  # fmt: skip
def min(out, x, dim=None, keepdim=False):
    _extreme(out, x, dim, keepdim, smaller)


@rule(torch.median, torch.nanmedian,
      samples=["r(3, 4)", "r(3, 5), 1", "r(3, 4), dim=0, keepdim=True", "i(3, 4, 5).double()", "r()"],
      note="over all elements, equal medians share the gradient; along an axis it goes to the index that is given")  # fmt: skip
def median(out, x, dim=None, keepdim=False):
    x.g = _shared_by_all(out.g, x, out) if dim is None else at_indices(out, x, dim, keepdim)


@rule(torch.mode, samples=["i(3, 4, 5).double()", "r(3, 4), 0, True", "r()"],
      note="the gradient goes to the index that is given")  # fmt: skip
def mode(out, x, dim=-1, keepdim=False):
    x.g = at_indices(out, x, dim, keepdim)


@rule(torch.kthvalue, samples=["r(3, 4), 2", "r(3, 4), 3, 0, True", "r(), 1"])
def kthvalue(out, x, k, dim=-1, keepdim=False):
    x.g = at_indices(out, x, dim, keepdim)


@rule(torch.topk, samples=["r(3, 4), 2", "r(3, 4), 3, 0, False", "r(3, 4), 2, dim=1, sorted=False", "r(), 1"])
def topk(out, x, k, dim=-1, largest=True, sorted=True):
    x.g = at_indices(out, x, dim)


@rule(torch.sort, samples=["r(3, 4)", "r(3, 4), 0, True", "r(3, 4), dim=0, descending=True", "i(3, 4, 5).double(), stable=True", "r()"],
      note="equal elements keep their gradients apart: the indices that are given are the inverse way")  # fmt: skip
def sort(out, x, dim=-1, descending=False, stable=False):
    x.g = at_indices(out, x, dim)


@opening(torch.msort, torch.Tensor.msort)
def msort(input):
    return input.sort(0)[0]


@opening(torch.quantile, torch.Tensor.quantile)
def quantile(input, q, dim=None, keepdim=False, *, interpolation="linear"):
    row = _sorted(input, dim)
    last = row.shape[-1] - 1
    ranks = torch.where(row.isnan().any(-1, keepdim=True), last, _listed(q, row) * last)  # a NaN is sorted to the end
    return _in_place_of_axis(_at(row, ranks, interpolation), q, input, dim, keepdim)


@opening(torch.nanquantile, torch.Tensor.nanquantile)
def nanquantile(input, q, dim=None, keepdim=False, *, interpolation="linear"):
    row = _sorted(input, dim)
    ranks = _listed(q, row) * ((~row.isnan()).sum(-1, keepdim=True) - 1)
    return _in_place_of_axis(_at(row, ranks.clamp_min(0), interpolation), q, input, dim, keepdim)


def _sorted(x, dim):
    """`x` in order along its last axis, where `dim` is moved to."""
    row = x.flatten() if dim is None or not x.ndim else x if dim % x.ndim == x.ndim - 1 else x.movedim(dim, -1)
    return row.sort(-1)[0]


def _listed(q, x):
    return q.reshape(-1) if isinstance(q, torch.Tensor) else x.new_tensor([q])


_ROUNDED = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}


def _at(row, ranks, interpolation):
    """The elements of a sorted `row` at `ranks`, which may lie between two."""
    if interpolation in _ROUNDED:
        return row.gather(-1, _ROUNDED[interpolation](ranks).long())
    below, above = ranks.floor(), ranks.ceil()
    weight = ranks - below if interpolation == "linear" else 0.5
    return torch.lerp(row.gather(-1, below.long()), row.gather(-1, above.long()), weight)


def _in_place_of_axis(values, q, x, dim, keepdim):
    """The quantiles, which stand along the last axis, where torch has them: first, or nowhere for a single q."""
    if keepdim and x.ndim:
        values = values.reshape((1,) * (x.ndim - 1) + values.shape) if dim is None else values
        axis = x.ndim - 1 if dim is None else dim % x.ndim
        values = values.unsqueeze(axis)
    return values.movedim(-1, 0) if isinstance(q, torch.Tensor) and q.ndim else values.squeeze(-1)
