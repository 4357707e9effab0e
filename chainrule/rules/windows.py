"""Windows: an element that stands in several windows gets the gradients of all."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import assume_size, rule


@rule(torch.Tensor.unfold, samples=["r(5, 3), 0, 2, 1", "r(3, 7), -1, 3, 2", "r(2, 5, 3), dimension=1, size=2, step=3", "r(), 0, 1, 1"],
      complex=True)  # fmt: skip
def unfold(out, x, dimension, size, step):
    if not x.ndim:
        x.g = out.g.sum()
        return
    axis = dimension % x.ndim
    places = torch.arange(x.shape[axis], device=x.device).unfold(0, size, step).flatten()
    g = out.g.movedim(-1, axis + 1).flatten(axis, axis + 1)
    x.g = torch.zeros_like(x).index_add(axis, places, g)


@rule(
    F.unfold,
    samples=["r(2, 3, 4, 5), 2", "r(2, 1, 5, 5), (3, 2), dilation=(1, 2), padding=1, stride=2", "r(3, 4, 5), (2, 3)"],
    complex=True,
)
def im2col(out, x, kernel_size, dilation=1, padding=0, stride=1):
    x.g = F.fold(out.g, x.shape[-2:], kernel_size, dilation, padding, stride)


@rule(F.fold, samples=["r(2, 12, 12), (4, 5), 2", "r(1, 6, 9), (5, 5), (3, 2), dilation=(1, 2), padding=1, stride=2", "r(12, 12), (4, 5), (2, 2)"],
      complex=True)  # fmt: skip
def col2im(out, x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    x.g = F.unfold(out.g, kernel_size, dilation, padding, stride)


@rule(torch.as_strided, samples=["r(3, 3), (2, 2), (1, 2)", "r(3, 4), (2, 3), (2, 1), 1", "r(3, 2), (2, 2, 2), (1, 1, 1)"], complex=True,
      note="memory that no element of x stands in gets no gradient; elements that share memory share its gradient")  # fmt: skip
def as_strided(out, x, size, stride, storage_offset=None):
    first = x.storage_offset()
    offset = first if storage_offset is None else storage_offset
    if x.is_contiguous() and _cells(x) == int(x.numel()):
        places = torch.arange(x.numel(), device=x.device).as_strided(size, stride, offset)
        x.g = torch.zeros_like(x).put(places, out.g, accumulate=True)
        return
    for axis in range(x.ndim):
        assume_size(x, axis, int(x.shape[axis]))  # so that x lies in its memory as it does now
    cells = torch.arange(_cells(x), device=x.device)
    places, own = cells.as_strided(size, stride, offset), cells.as_strided(x.shape, x.stride(), first)
    empty = torch.zeros_like(cells, dtype=x.dtype)
    g = empty.put(places, out.g, accumulate=True).take(own)
    x.g = g / empty.put(own, torch.ones_like(x), accumulate=True).take(own) if _shares(x) else g


def _cells(x):
    """How many numbers the memory behind `x` holds."""
    return x.untyped_storage().nbytes() // x.element_size()


def _shares(x):
    """Whether elements of `x` may stand in the same memory, as those of an expanded tensor do."""
    return torch._debug_has_internal_overlap(x) != 0
