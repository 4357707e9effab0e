"""Operations of aten as values: convolution and pooling, as products and reductions of windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.index import Index
from chainrule.compiling.c.spellings import aten, spells
from chainrule.compiling.c.values import Placed, Value, permute, reshape, squeeze, take, view


def _padded(x: Value, padding: Sequence[int], number: float) -> Value:
    """`x` with a margin around its last dimensions."""
    if not any(padding):
        return x
    lead = len(x.shape) - len(padding)
    shape = (*x.shape[:lead], *(n + 2 * p for n, p in zip(x.shape[lead:], padding)))
    index = tuple(Index.of(d) + Index(padding[d - lead] if d >= lead else 0) for d in range(len(x.shape)))
    return Placed(shape, x.dtype, c.constant(number, x.dtype, shape), ((x, index),))


def _windows(
    sizes: Sequence[int], strides: Sequence[int], dilations: Sequence[int], at: Sequence[int], inside: Sequence[int]
) -> list[Index]:
    """Where in the padded image the elements of the windows lie: `at`, the dimension of the view that counts the
    windows along each axis; `inside`, the one that counts places in a window."""
    return [Index.of(a) * s + Index.of(k) * d for a, k, s, d in zip(at, inside, strides, dilations)]


def _spread(values: Sequence[int], count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


def _columns(
    x: Value,
    kernel: Sequence[int],
    out: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Value:
    """Each window as a column: (channels * kernel, batch * places)."""
    n = len(kernel)
    padded = _padded(x, padding, 0.0)
    shape = (x.shape[1], *kernel, x.shape[0], *out)
    index = [
        Index.of(n + 1),
        Index.of(0),
        *_windows(kernel, stride, dilation, range(n + 2, 2 * n + 2), range(1, n + 1)),
    ]
    return reshape(view(padded, shape, index), (x.shape[1] * math.prod(kernel), x.shape[0] * math.prod(out)))


@spells(aten.convolution.default)
def convolution(
    out: Any,
    x: Value,
    w: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    _: Any,
    groups: int,
) -> Value:
    if transposed or groups != 1:
        raise NotImplementedError
    kernel, places, n = w.shape[2:], tuple(out.shape[2:]), len(w.shape) - 2
    columns = _columns(x, kernel, places, _spread(stride, n), _spread(padding, n), _spread(dilation, n))
    y = c.matmul(reshape(w, (w.shape[0], columns.shape[0])), columns)
    y = permute(reshape(y, (w.shape[0], x.shape[0], *places)), [1, 0, *range(2, n + 2)])
    return c.add(y, reshape(bias, (bias.numel, *(1,) * n))) if bias else y


@spells(aten.convolution_backward.default)
def convolution_backward(
    out: Any, g: Value, x: Value, w: Value, bias_sizes: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, _: Any, groups: int, wanted: Sequence[bool]
) -> tuple[Value | None, ...]:  # fmt: skip
    if transposed or groups != 1:
        raise NotImplementedError
    kernel, places, n = w.shape[2:], g.shape[2:], len(w.shape) - 2
    stride, padding, dilation = (_spread(v, n) for v in (stride, padding, dilation))
    rows = reshape(permute(g, [1, 0, *range(2, n + 2)]), (w.shape[0], x.shape[0] * math.prod(places)))
    of_x = of_w = of_bias = None
    if wanted[0]:
        columns = c.matmul(permute(reshape(w, (w.shape[0], w.numel // w.shape[0])), [1, 0]), rows)
        columns = reshape(columns, (x.shape[1], *kernel, x.shape[0], *places))
        of_x = _folded(columns, x.shape, kernel, stride, padding, dilation)
    if wanted[1]:
        columns = _columns(x, kernel, places, stride, padding, dilation)
        of_w = reshape(c.matmul(rows, permute(columns, [1, 0])), w.shape)
    if wanted[2]:
        of_bias = c.total(g, [0, *range(2, n + 2)])
    return of_x, of_w, of_bias


def _folded(
    columns: Value,
    shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Value:
    """The sum of what each window says of an element of the image: (channels, kernel, batch, places) -> image."""
    n = len(kernel)
    padded = (*shape[:2], *(size + 2 * p for size, p in zip(shape[2:], padding)))
    parts = []
    for place in range(math.prod(kernel)):
        part = columns
        index: list[Index | Value] = [Index.of(0), Index.of(1)]
        inside: list[int] = []
        for k in reversed(kernel):
            inside.insert(0, place % k)
            place //= k
        for axis, k in enumerate(inside):
            part = take(part, 1 + axis, k, 1)
            index.append(Index.of(2 + axis) * stride[axis] + Index(k * dilation[axis]))
        parts.append((permute(squeeze(part, range(1, n + 1)), [1, 0, *range(2, n + 2)]), tuple(index)))
    whole: Value = Placed(padded, columns.dtype, c.constant(0, columns.dtype, padded), tuple(parts), "+=")
    for axis, p in enumerate(padding):
        whole = take(whole, 2 + axis, p, shape[2 + axis])
    return whole


@spells(aten.max_pool2d_with_indices.default)
def max_pool2d(
    out: Any, x: Value, kernel: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), ceil: bool = False
) -> Any:
    kernel, padding, dilation = _spread(kernel, 2), _spread(padding, 2), _spread(dilation, 2)
    stride = _spread(stride, 2) if stride else kernel
    if ceil or len(x.shape) != 4:
        raise NotImplementedError
    padded, (height, width) = _padded(x, padding, -math.inf), out[0].shape[2:]
    best = where = None
    for row, column in itertools.product(range(kernel[0]), range(kernel[1])):  # a place in all the windows at once
        x_at = take(padded, 2, row * dilation[0], height, stride[0])
        x_at = take(x_at, 3, column * dilation[1], width, stride[1])
        at = c.constant((row * dilation[0] - padding[0]) * x.shape[3] + column * dilation[1] - padding[1], torch.int64)
        if best is None or where is None:
            best, where = x_at, at
            continue
        better = c.add(c.compare(">", x_at, best), c.compare("!=", x_at, x_at))
        best, where = c.where(better, x_at, best), c.where(better, at, where)
    assert best is not None and where is not None
    first = c.add(c.mul(c.position(best.shape, 2), stride[0] * x.shape[3]), c.mul(c.position(best.shape, 3), stride[1]))
    return best, c.add(first, where)


@spells(aten.max_pool2d_with_indices_backward.default)
def max_pool2d_backward(
    out: Any, g: Value, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, where: Value
) -> Value:
    if len(x.shape) != 4:
        raise NotImplementedError
    flat = (*x.shape[:2], x.shape[2] * x.shape[3])
    whole = Placed(flat, g.dtype, c.constant(0, g.dtype, flat), ((g, (Index.of(0), Index.of(1), where)),), "+=")
    return reshape(whole, x.shape)
