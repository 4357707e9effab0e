"""Operations of aten as values: lookups, losses, norms, convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.index import Index
from chainrule.compiling.c.spellings import aten, spells
from chainrule.compiling.c.values import Placed, Value, expand, permute, reshape, squeeze, take, unsqueeze, view

# -- softmax and losses ------------------------------------------------------------------------------


@spells(aten._softmax.default)
def softmax(out: Any, x: Value, dim: int, half_to_float: bool) -> Value:
    e = c.exp(c.sub(x, c.largest(x, [dim], True)))
    return c.div(e, c.total(e, [dim], True))


@spells(aten._log_softmax.default)
def log_softmax(out: Any, x: Value, dim: int, half_to_float: bool) -> Value:
    below = c.sub(x, c.largest(x, [dim], True))
    return c.sub(below, c.log(c.total(c.exp(below), [dim], True)))


@spells(aten._softmax_backward_data.default)
def softmax_backward(out: Any, g: Value, y: Value, dim: int, dtype: Any) -> Value:
    gy = c.mul(g, y)
    return c.sub(gy, c.mul(y, c.total(gy, [dim], True)))


@spells(aten._log_softmax_backward_data.default)
def log_softmax_backward(out: Any, g: Value, y: Value, dim: int, dtype: Any) -> Value:
    return c.sub(g, c.mul(c.exp(y), c.total(g, [dim], True)))


@spells(aten.nll_loss_forward.default)
def nll_loss(
    out: Any, x: Value, target: Value, weight: Value | None, reduction: int, ignored: int
) -> tuple[Value, Value]:
    counted = c.compare("!=", target, ignored)
    label = c.where(counted, target, 0, target.dtype)
    size = expand(lookup(weight, 0, label), target.shape) if weight else c.constant(1, x.dtype, target.shape)
    size = c.where(counted, size, 0, x.dtype)
    loss = c.where(counted, c.mul(c.neg(lookup(x, len(x.shape) - 1, label)), size), 0, x.dtype)
    total = c.total(size, range(len(target.shape)))
    if reduction:
        loss = c.total(loss, range(len(target.shape)))
    return c.div(loss, total) if reduction == 1 else loss, total


@spells(aten.nll_loss_backward.default)
def nll_loss_backward(
    out: Any, g: Value, x: Value, target: Value, weight: Value | None, reduction: int, ignored: int, total: Value
) -> Value:
    last = len(x.shape) - 1
    column, target = c.position(x.shape, last), unsqueeze(target, last)
    g = c.div(g, total) if reduction == 1 else unsqueeze(g, last) if g.shape else g
    g = c.mul(g, weight) if weight else g
    chosen = c.both(c.compare("==", column, target), c.compare("!=", target, ignored))
    return c.where(chosen, c.neg(g), 0, x.dtype)


# -- lookups -----------------------------------------------------------------------------------------


def lookup(x: Value, dim: int, index: Value) -> Value:
    """`x` at the places `index` along `dim`; the other dimensions of `index` are those of `x`."""
    return c.lookup(x, dim, index)


@spells(aten.embedding.default)
def embedding(out: Any, weight: Value, index: Value, *_: Any) -> Value:
    row = expand(unsqueeze(index, len(index.shape)), tuple(out.shape))
    return view(weight, tuple(out.shape), (row, Index.of(len(index.shape))))


@spells(aten.embedding_dense_backward.default)
def embedding_dense_backward(out: Any, g: Value, index: Value, rows: int, padding: int, by_frequency: bool) -> Value:
    if by_frequency:
        raise NotImplementedError
    row = expand(unsqueeze(index, len(index.shape)), g.shape)
    if padding >= 0:
        g = c.where(c.compare("==", row, padding), 0, g, g.dtype)
    start = c.constant(0, g.dtype, tuple(out.shape))
    return Placed(tuple(out.shape), g.dtype, start, ((g, (row, Index.of(len(index.shape)))),), "+=")


@spells(aten.gather.default)
def gather(out: Any, x: Value, dim: int, index: Value, **_: Any) -> Value:
    return view(x, index.shape, _along(x, dim, index)) if x.shape else x


@spells(aten.index_select.default)
def index_select(out: Any, x: Value, dim: int, index: Value) -> Value:
    dim %= len(x.shape)
    return view(x, tuple(out.shape), _along(x, dim, expand(_lined_up(index, dim, len(x.shape)), tuple(out.shape))))


def _along(x: Value, dim: int, index: Value) -> tuple[Index | Value, ...]:
    return tuple(index if d == dim % len(x.shape) else Index.of(d) for d in range(len(x.shape)))


def _lined_up(index: Value, dim: int, rank: int) -> Value:
    return reshape(index, [index.numel if d == dim else 1 for d in range(rank)])


@spells(aten.scatter_add.default)
def scatter_add(out: Any, x: Value, dim: int, index: Value, source: Value) -> Value:
    part = take_shape(source, index.shape)
    return Placed(x.shape, x.dtype, x, ((part, _along(x, dim, index)),), "+=")


@spells(aten.scatter.src, aten.scatter.value)
def scatter(out: Any, x: Value, dim: int, index: Value, source: c.Operand) -> Value:
    part = take_shape(source, index.shape) if isinstance(source, Value) else c.constant(source, x.dtype, index.shape)
    return Placed(x.shape, x.dtype, x, ((part, _along(x, dim, index)),))


def take_shape(x: Value, shape: Sequence[int]) -> Value:
    for d, n in enumerate(shape):
        x = take(x, d, 0, n)
    return x


def _advanced(x: Value, indices: Sequence[Value | None]) -> tuple[tuple[int, ...], tuple[Index | Value, ...]]:
    """The shape of `x[indices]`, and its index in `x`."""
    given = [i for i in indices if i is not None]
    if any(i.dtype is c.torch.bool for i in given):
        raise NotImplementedError
    places = [d for d, i in enumerate(indices) if i is not None]
    together = c.torch.broadcast_shapes(*(i.shape for i in given))
    first = places[0] if places[-1] - places[0] == len(places) - 1 else 0
    rest = [d for d in range(len(x.shape)) if d >= len(indices) or indices[d] is None]
    before = [d for d in rest if d < first] if first else []
    shape = (*(x.shape[d] for d in before), *together, *(x.shape[d] for d in rest if d not in before))
    where = {d: k + (len(together) if k >= len(before) else 0) for k, d in enumerate(rest)}
    index: list[Index | Value] = []
    for d, n in enumerate(x.shape):
        if d in where:
            index.append(Index.of(where[d]))
            continue
        place = indices[d]
        assert place is not None
        place = c.where(c.compare("<", place, 0), c.add(place, n), place, place.dtype)
        spread = expand(place, together)
        index.append(view(spread, shape, [Index.of(len(before) + k) for k in range(len(together))]))
    return shape, tuple(index)


@spells(aten.index.Tensor)
def index(out: Any, x: Value, indices: Sequence[Value | None]) -> Value:
    return view(x, *_advanced(x, indices))


@spells(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(out: Any, x: Value, indices: Sequence[Value | None], source: Value, accumulate: bool = False) -> Value:
    shape, places = _advanced(x, indices)
    return Placed(x.shape, x.dtype, x, ((expand(source, shape), places),), "+=" if accumulate else "=")


# -- norms -------------------------------------------------------------------------------------------


@spells(aten.native_layer_norm.default)
def layer_norm(out: Any, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float) -> Any:
    over = range(len(x.shape) - len(shape), len(x.shape))
    centre = c.mean(x, over, True)
    distance = c.sub(x, centre)
    rate = c.div(1.0, c.sqrt(c.add(c.mean(c.mul(distance, distance), over, True), eps)))
    y = c.mul(distance, rate)
    y = c.mul(y, weight) if weight else y
    return c.add(y, bias) if bias else y, centre, rate


# -- windows -----------------------------------------------------------------------------------------


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
        inside = []
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
    shape = (*out[0].shape, *kernel)
    places = _windows(kernel, stride, dilation, (2, 3), (4, 5))
    windows = view(_padded(x, padding, -math.inf), shape, [Index.of(0), Index.of(1), *places])
    inside = c.reduce(windows, [4, 5], "argmax", c.torch.int64)
    row, column = (c.add(c.mul(c.position(inside.shape, 2 + a), stride[a]), -padding[a]) for a in (0, 1))
    row = c.add(
        row,
        c.mul(c.point("{0} / {1}", inside, c.constant(kernel[1], inside.dtype, inside.shape), level=6), dilation[0]),
    )
    column = c.add(
        column,
        c.mul(c.point("{0} % {1}", inside, c.constant(kernel[1], inside.dtype, inside.shape), level=6), dilation[1]),
    )
    return c.largest(windows, [4, 5]), c.add(c.mul(row, x.shape[3]), column)


@spells(aten.max_pool2d_with_indices_backward.default)
def max_pool2d_backward(
    out: Any, g: Value, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, where: Value
) -> Value:
    if len(x.shape) != 4:
        raise NotImplementedError
    flat = (*x.shape[:2], x.shape[2] * x.shape[3])
    whole = Placed(flat, g.dtype, c.constant(0, g.dtype, flat), ((g, (Index.of(0), Index.of(1), where)),), "+=")
    return reshape(whole, x.shape)
