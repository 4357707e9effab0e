"""Convolutions in one to three dimensions, transposed, strided, padded, dilated and grouped.

A convolution is linear in its input and linear in its kernel. torch.nn.grad has its two transposes:
`conv2d_input` takes the upstream gradient back to the input, `conv2d_weight` back to the kernel.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn import grad
from torch.overrides import handle_torch_function, has_torch_function

from chainrule.recording.numbers import Tracked
from chainrule.rules.book import assume_size, opening, rule


def _in_sight(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for the recorder to write down whole: those of torch.nn.grad do not call it by themselves."""

    @functools.wraps(function)
    def call(*args: Any, **how: Any) -> Any:
        seen = has_torch_function(args)
        return handle_torch_function(function, args, *args, **how) if seen else function(*args, **how)

    return call


_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_INPUT = {n: _in_sight(getattr(grad, f"conv{n}d_input")) for n in (1, 2, 3)}
_WEIGHT = {n: _in_sight(getattr(grad, f"conv{n}d_weight")) for n in (1, 2, 3)}


@rule(F.conv1d, samples=["r(2, 3, 7), r(4, 3, 3), r(4)", "r(2, 4, 9), r(6, 2, 3), None, 2, 1, 2, 2", "r(3, 7), r(4, 3, 3), r(4)", "r(2, 3, 7), r(4, 3, 4), padding='same', dilation=2"],
      holomorphic=True)  # fmt: skip
@rule(F.conv2d, samples=["r(2, 3, 5, 6), r(4, 3, 3, 2), r(4)", "r(2, 4, 7, 6), r(6, 2, 3, 3), r(6), (2, 1), (1, 2), (1, 2), 2", "r(3, 5, 6), r(4, 3, 3, 2), r(4), stride=2",
                         "r(2, 3, 5, 6), r(4, 3, 3, 3), r(4), padding='same'", "r(2, 3, 5, 6), r(4, 3, 2, 3), None, 1, 'same', (2, 3)", "r(2, 3, 6, 7), r(4, 3, 3, 3), stride=2, padding='valid'",
                         "r(2, 3, 8, 6), r(3, 1, 3, 3), r(3), 3, 1, groups=3"],
      holomorphic=True)  # fmt: skip
@rule(F.conv3d, samples=["r(2, 2, 4, 3, 5), r(3, 2, 2, 2, 3), r(3)", "r(2, 4, 3, 4), r(2, 1, 2, 2, 2), None, (1, 2, 1), 1, (2, 1, 1), 2"],
      holomorphic=True)  # fmt: skip
def convolution(out, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    n = weight.ndim - 2
    source, g = _batched(x, n), _batched(out.g, n)
    padding, beyond = _padding(weight, padding, dilation)
    how = _how(stride, padding, dilation, groups)
    if any(beyond):  # "same" with an even kernel: the zero that is left over stands on the right
        source = F.pad(source, beyond)
    source_g = _input_gradient(n, source.shape, weight, g, **how)
    if any(beyond):
        source_g = F.pad(source_g, [-width for width in beyond])
    x.g = source_g if x.ndim == n + 2 else source_g.squeeze(0)
    weight.g = _weight_gradient(n, source, weight.shape, g, **how)
    if bias is not None:
        bias.g = _over_all_but_channels(out.g, n)


@rule(F.conv_transpose1d, samples=["r(2, 3, 5), r(3, 4, 3), r(4)", "r(2, 4, 5), r(4, 3, 3), None, 3, 1, 2, 2, 2", "r(3, 5), r(3, 4, 3), r(4), 2", "r(2, 3, 5), r(3, 4, 3), r(4), 1, 0, 2, 1, 3"],
      holomorphic=True)  # fmt: skip
@rule(F.conv_transpose2d, samples=["r(2, 3, 4, 5), r(3, 4, 3, 2), r(4)", "r(2, 4, 4, 3), r(4, 3, 3, 3), r(6), (2, 3), (1, 0), (1, 2), 2, (1, 2)", "r(3, 4, 5), r(3, 4, 3, 2), r(4), padding=1"],
      holomorphic=True)  # fmt: skip
@rule(F.conv_transpose3d, samples=["r(2, 2, 3, 2, 3), r(2, 3, 2, 2, 3), r(3)", "r(2, 3, 2, 3), r(2, 2, 2, 2, 2), None, 2, (1, 0, 1), 1, 2"],
      holomorphic=True)  # fmt: skip
def transposed(out, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    n = weight.ndim - 2
    source, g = _batched(x, n), _batched(out.g, n)
    beyond = _beyond(n, output_padding, stride)
    how = _how(stride, padding, dilation, groups)
    source_g = _CONV[n](g, weight, **how)
    if any(beyond):  # output_padding of a whole stride or more: positions that the input does not have
        source, source_g = F.pad(source, beyond), F.pad(source_g, [-width for width in beyond])
    x.g = source_g if x.ndim == n + 2 else source_g.squeeze(0)
    weight.g = _weight_gradient(n, g, weight.shape, source, **how)
    if bias is not None:
        bias.g = _over_all_but_channels(out.g, n)


@rule(_INPUT[1], samples=["(2, 4, 9), r(6, 2, 3), r(2, 6, 4), 2, 1, 2, 2"], holomorphic=True)
@rule(_INPUT[2], samples=["(2, 3, 5, 6), r(4, 3, 3, 2), r(2, 4, 3, 5)"], holomorphic=True)
@rule(_INPUT[3], samples=["(2, 2, 4, 3, 5), r(3, 2, 2, 2, 3), r(2, 3, 3, 2, 3)"], holomorphic=True)
def input_gradient(out, input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1):
    n, how = weight.ndim - 2, _how(stride, padding, dilation, groups)
    weight.g = _weight_gradient(n, out.g, weight.shape, grad_output, **how)
    grad_output.g = _CONV[n](out.g, weight, **how)


@rule(_WEIGHT[1], samples=["r(2, 4, 9), (6, 2, 3), r(2, 6, 4), 2, 1, 2, 2"], holomorphic=True)
@rule(_WEIGHT[2], samples=["r(2, 3, 5, 6), (4, 3, 3, 2), r(2, 4, 3, 5)"], holomorphic=True)
@rule(_WEIGHT[3], samples=["r(2, 2, 4, 3, 5), (3, 2, 2, 2, 3), r(2, 3, 3, 2, 3)"], holomorphic=True)
def weight_gradient(out, x, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1):
    n, how = x.ndim - 2, _how(stride, padding, dilation, groups)
    x.g = _input_gradient(n, x.shape, out.g, grad_output, **how)
    grad_output.g = _CONV[n](x, out.g, **how)


def _input_gradient(n, size, weight, g, **how):
    return _by_parts(lambda w, g: _INPUT[n](size, w, g, **how), weight, g)


def _weight_gradient(n, x, size, g, **how):
    return _by_parts(lambda x, g: _WEIGHT[n](x, size, g, **how), x, g)


def _by_parts(product, a, b):
    """A product of complex tensors from those of their parts: torch has these two for real numbers only."""
    if not a.is_complex():
        return product(a, b)
    real = product(a.real, b.real) - product(a.imag, b.imag)
    return torch.complex(real, product(a.real, b.imag) + product(a.imag, b.real))


def _batched(x, n):
    """`x` with an axis for the batch, before the channels and `n` axes of space."""
    return x if x.ndim == n + 2 else x.unsqueeze(0)


def _over_all_but_channels(g, n):
    return g.sum(tuple(axis for axis in range(g.ndim) if axis != g.ndim - n - 1))


def _padding(weight, padding, dilation):
    """The zeros on both sides of each axis of space, and those beyond them on the right, as F.pad takes them."""
    n = weight.ndim - 2
    if not isinstance(padding, str) or padding == "valid":
        return 0 if padding == "valid" else padding, [0] * 2 * n
    sides, beyond = [], []
    for axis, step in enumerate(_each(n, dilation), 2):
        zeros = step * (int(weight.shape[axis]) - 1)
        assume_size(weight, axis, int(weight.shape[axis]))
        sides.append(zeros // 2)
        beyond = [0, zeros % 2, *beyond]
    return tuple(sides), beyond


def _beyond(n, output_padding, stride):
    """How much longer the convolution of the output is than the input, on the right, as F.pad takes it."""
    beyond = []
    for added, step in zip(_each(n, output_padding), _each(n, stride), strict=True):
        beyond = [0, added // step, *beyond]
    return beyond


def _how(stride, padding, dilation, groups):
    """The settings that are not torch's defaults, a number where it is the same for all axes."""
    given = {"stride": (stride, 1), "padding": (padding, 0), "dilation": (dilation, 1), "groups": (groups, 1)}
    plain = {name: (_one(value), default) for name, (value, default) in given.items()}
    return {name: v for name, (v, default) in plain.items() if isinstance(v, Tracked) or v != default}


def _one(value):
    same = isinstance(value, tuple | list) and len(set(value)) == 1 and not isinstance(value[0], Tracked)
    return value[0] if same else value


def _each(n, value):
    """A number for each of the `n` axes of space."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


@opening(torch.convolution, torch.ops.aten.convolution, torch.ops.aten.convolution.default)
def any_convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    n = weight.ndim - 2
    how = _how(stride, padding, dilation, groups)
    if not transposed:
        return _CONV[n](input, weight, bias, **how)
    return _TRANSPOSED[n](input, weight, bias, output_padding=_one(output_padding), **how)


@opening(torch._convolution, torch.ops.aten._convolution, torch.ops.aten._convolution.default)
def any_convolution_on(
    input, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *how, **named
):
    return any_convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)


@opening(torch.conv_tbc)
def conv_tbc(input, weight, bias, pad=0):
    out = F.conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return out.permute(2, 0, 1)
