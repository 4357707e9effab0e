"""Pooling and unpooling over windows."""

import math

import torch
import torch.nn.functional as F

from chainrule.recording.unseen import drawn
from chainrule.rules.book import opening, rule


def _rows(x, n):
    """`x` with its last `n` axes, those of space, as one: the indices of torch's poolings count along it."""
    return x.flatten(-n) if n > 1 else x


def _to_the_chosen(out, x, n):
    """The gradient of each window goes to the element that was chosen from it; a chosen element adds up its windows."""
    values, indices = out
    chosen = _rows(torch.zeros_like(x), n).scatter_add(-1, _rows(indices, n), _rows(values.g, n))
    x.g = chosen.reshape(x.shape) if n > 1 else chosen


CHOICE = "among equal elements, the gradient goes to the one whose index torch gives"
_MAX = {n: getattr(F, f"max_pool{n}d_with_indices") for n in (1, 2, 3)}
_ADAPTIVE_MAX = {n: getattr(F, f"adaptive_max_pool{n}d_with_indices") for n in (1, 2, 3)}


@rule(_MAX[1], samples=["r(2, 3, 7), 2", "r(3, 7), 3, 2, 1", "r(2, 3, 9), 3, 1, 0, 2, True", "i(3, 2, 3, 8).double(), 3, stride=1"], note=CHOICE)  # fmt: skip
def max_pool1d(out, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    _to_the_chosen(out, x, 1)


@rule(_MAX[2], samples=["r(2, 3, 4, 6), 2", "r(3, 5, 7), (3, 2), (1, 2), 1", "r(2, 3, 7, 8), 3, 2, 1, (1, 2), True", "i(3, 2, 1, 4, 6).double(), 3, stride=1"], note=CHOICE)  # fmt: skip
def max_pool2d(out, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    _to_the_chosen(out, x, 2)


@rule(_MAX[3], samples=["r(2, 2, 4, 2, 6), 2", "r(2, 4, 5, 3), (3, 2, 2), 1, (1, 0, 1)", "i(3, 2, 1, 4, 4, 3).double(), 2, stride=1"], note=CHOICE)  # fmt: skip
def max_pool3d(out, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    _to_the_chosen(out, x, 3)


@rule(_ADAPTIVE_MAX[1], samples=["r(2, 3, 7), 3", "r(3, 6), 4"], note=CHOICE)
def adaptive_max_pool1d(out, x, output_size, return_indices=False):
    _to_the_chosen(out, x, 1)


@rule(_ADAPTIVE_MAX[2], samples=["r(2, 3, 7, 6), (3, None)", "r(3, 6, 5), 4"], note=CHOICE)
def adaptive_max_pool2d(out, x, output_size, return_indices=False):
    _to_the_chosen(out, x, 2)


@rule(_ADAPTIVE_MAX[3], samples=["r(2, 2, 4, 3, 5), (3, 2, 4)", "r(2, 5, 3, 4), 2"], note=CHOICE)
def adaptive_max_pool3d(out, x, output_size, return_indices=False):
    _to_the_chosen(out, x, 3)


for n in (1, 2, 3):

    @opening(getattr(F, f"max_pool{n}d"), getattr(torch, f"max_pool{n}d"))
    def values_of_max_pool(
        input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False, n=n
    ):
        pooled, indices = _MAX[n](input, kernel_size, stride, padding, dilation, ceil_mode)
        return (pooled, indices) if return_indices else pooled

    @opening(getattr(F, f"adaptive_max_pool{n}d"))
    def values_of_adaptive_max_pool(input, output_size, return_indices=False, n=n):
        pooled, indices = _ADAPTIVE_MAX[n](input, output_size)
        return (pooled, indices) if return_indices else pooled


_FRACTIONAL = {2: torch.ops.aten.fractional_max_pool2d, 3: torch.ops.aten.fractional_max_pool3d}


@rule(_FRACTIONAL[2], samples=["r(2, 3, 6, 7), 2, (3, 4), u(2, 3, 2)", "r(3, 6, 5), (2, 3), (4, 2), u(1, 3, 2)"], note=CHOICE)  # fmt: skip
def fractional_max_pool2d(out, x, kernel_size, output_size, random_samples):
    _to_the_chosen(out, x, 2)
    random_samples.g = None


@rule(_FRACTIONAL[3], samples=["r(3, 5, 5, 7), 2, (3, 2, 4), u(1, 3, 3)", "r(2, 7, 6, 5), (2, 3, 1), 2, u(1, 2, 3)"], note=CHOICE)  # fmt: skip
def fractional_max_pool3d(out, x, kernel_size, output_size, random_samples):
    _to_the_chosen(out, x, 3)
    random_samples.g = None


for n in (2, 3):

    @opening(getattr(F, f"fractional_max_pool{n}d"), getattr(F, f"fractional_max_pool{n}d_with_indices"))
    def fractional_max_pool(
        input, kernel_size, output_size=None, output_ratio=None, return_indices=False, _random_samples=None, n=n
    ):
        if output_size is None:
            ratios = (output_ratio,) * n if isinstance(output_ratio, int | float) else output_ratio
            output_size = [int(size * ratio) for size, ratio in zip(input.shape[-n:], ratios, strict=True)]
        samples = _starts(input, n) if _random_samples is None else _random_samples
        pooled, indices = _FRACTIONAL[n](input, kernel_size, output_size, samples)
        return (pooled, indices) if return_indices else pooled


def _starts(x, n):
    """Where the windows begin: drawn as torch draws it, so that a seed gives the run that it would have given."""
    with torch._C.DisableTorchFunction():
        batch = 1 if x.ndim == n + 1 else x.shape[0]
        samples = torch.rand(batch, x.shape[-n - 1], n, dtype=x.dtype, device=x.device)
    return drawn(samples, "samples")


@rule(torch.ops.aten.max_pool2d_with_indices_backward, samples=["r(2, 3, 2, 3), r(2, 3, 4, 6), 2, 2, 0, 1, False, i(24, 2, 3, 2, 3)"])  # fmt: skip
def max_pool2d_with_indices_backward(out, grad_output, x, kernel_size, stride, padding, dilation, ceil_mode, indices):
    grad_output.g = _at(out.g, indices, 2)
    x.g = None


def _at(g, indices, n):
    """The elements of `g` at the places of torch's indices."""
    return _rows(g, n).gather(-1, _rows(indices, n)).reshape(indices.shape) if n > 1 else g.gather(-1, indices)


UNPOOLED = "where an index stands twice, each of its values gets the gradient, as autograd has it"


@rule(F.max_unpool1d, samples=["r(2, 3, 2), torch.tensor([0, 3]).expand(2, 3, 2), 2", "r(3, 2), torch.tensor([1, 2]).expand(3, 2), 2, 2, 0, (5,)"], note=UNPOOLED)  # fmt: skip
def max_unpool1d(out, x, indices, kernel_size, stride=None, padding=0, output_size=None):
    x.g = _at(out.g, indices, 1)


@rule(F.max_unpool2d, samples=["r(2, 3, 1, 2), torch.tensor([[2, 5]]).expand(2, 3, 1, 2), 2", "r(3, 2, 1), torch.tensor([[0], [4]]).expand(3, 2, 1), 2, output_size=(5, 3)"], note=UNPOOLED)  # fmt: skip
def max_unpool2d(out, x, indices, kernel_size, stride=None, padding=0, output_size=None):
    x.g = _at(out.g, indices, 2)


@rule(F.max_unpool3d, samples=["r(2, 3, 1, 1, 2), torch.tensor([[[2, 12]]]).expand(2, 3, 1, 1, 2), 2"], note=UNPOOLED)
def max_unpool3d(out, x, indices, kernel_size, stride=None, padding=0, output_size=None):
    x.g = _at(out.g, indices, 3)


SHARES = "each element of a window gets the same share of the gradient of its mean"


@rule(F.avg_pool1d, samples=["r(2, 3, 7), 2", "r(3, 7), 3, 2, 1, True, False"], note=SHARES)
def avg_pool1d(out, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    settings = (kernel_size, stride or kernel_size, padding)
    kernel, step, zeros = (value if isinstance(value, int) else value[0] for value in settings)
    x_g = torch.ops.aten.avg_pool2d_backward(
        out.g.unsqueeze(-2), x.unsqueeze(-2), (1, kernel), (1, step), (0, zeros), ceil_mode, count_include_pad, None
    )
    x.g = x_g.squeeze(-2)


@rule(F.avg_pool2d, samples=["r(2, 3, 4, 6), 2", "r(3, 5, 7), (3, 2), (1, 2), 1, True, False", "r(2, 3, 4, 6), 2, divisor_override=3"], note=SHARES)  # fmt: skip
def avg_pool2d(
    out, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    x.g = torch.ops.aten.avg_pool2d_backward(
        out.g, x, kernel_size, stride or kernel_size, padding, ceil_mode, count_include_pad, divisor_override
    )


@rule(F.avg_pool3d, samples=["r(2, 2, 4, 2, 6), 2", "r(2, 5, 4, 3), (3, 2, 2), 1, (1, 0, 1), False, False", "r(2, 2, 4, 2, 5), 2, ceil_mode=True, divisor_override=3"], note=SHARES)  # fmt: skip
def avg_pool3d(
    out, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    x.g = torch.ops.aten.avg_pool3d_backward(
        out.g, x, kernel_size, stride or kernel_size, padding, ceil_mode, count_include_pad, divisor_override
    )


def _over_all(out, x, output_size, n):
    """The gradient of a mean over all of space, where that is what the adaptive pooling is."""
    sizes = (output_size,) if isinstance(output_size, int) else tuple(output_size)
    if any(size != 1 for size in sizes):
        return None
    return (out.g / math.prod(x.shape[-n:])).expand(x.shape)


@rule(F.adaptive_avg_pool1d, samples=["r(2, 3, 7), 3", "r(3, 6), 4", "r(2, 3, 7), 1"], note=SHARES)
def adaptive_avg_pool1d(out, x, output_size):
    mean_g = _over_all(out, x, output_size, 1)
    x.g = (
        torch.ops.aten._adaptive_avg_pool2d_backward(out.g.unsqueeze(-2), x.unsqueeze(-2)).squeeze(-2)
        if mean_g is None
        else mean_g
    )


@rule(F.adaptive_avg_pool2d, samples=["r(2, 3, 7, 6), (3, None)", "r(3, 6, 5), 4", "r(2, 3, 7, 6), 1", "r(2, 3, 7, 6), (1, 1)"], note=SHARES)  # fmt: skip
def adaptive_avg_pool2d(out, x, output_size):
    mean_g = _over_all(out, x, output_size, 2)
    x.g = torch.ops.aten._adaptive_avg_pool2d_backward(out.g, x) if mean_g is None else mean_g


@rule(F.adaptive_avg_pool3d, samples=["r(2, 2, 4, 3, 5), (3, 2, 4)", "r(2, 5, 3, 4), 2", "r(2, 5, 3, 4), 1"], note=SHARES)  # fmt: skip
def adaptive_avg_pool3d(out, x, output_size):
    mean_g = _over_all(out, x, output_size, 3)
    x.g = torch.ops.aten._adaptive_avg_pool3d_backward(out.g, x) if mean_g is None else mean_g
