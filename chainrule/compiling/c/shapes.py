"""Operations of aten as values: what is made of nothing, shapes and reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.index import Index
from chainrule.compiling.c.spellings import SPELLINGS, aten, spells
from chainrule.compiling.c.values import (
    Placed,
    Value,
    expand,
    permute,
    reduce,
    reshape,
    spread,
    squeeze,
    take,
    unsqueeze,
    view,
)

# -- made of nothing ---------------------------------------------------------------------------------


@spells(aten.full.default)
def full(out: Any, shape: Sequence[int], number: float, **_: Any) -> Value:
    return c.constant(number, out.dtype, tuple(out.shape))


@spells(aten.full_like.default, aten.new_full.default)
def full_like(out: Any, x: Value, *number: Any, **_: Any) -> Value:
    return c.constant(number[-1], out.dtype, tuple(out.shape))


spells(aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default, aten.new_empty.default, aten.empty_like.default,
       aten.empty.memory_format)(lambda out, *_, **__: c.constant(0, out.dtype, tuple(out.shape)))  # fmt: skip
spells(aten.ones.default, aten.ones_like.default, aten.new_ones.default)(
    lambda out, *_, **__: c.constant(1, out.dtype, tuple(out.shape))
)
spells(aten.scalar_tensor.default)(lambda out, number, **_: c.constant(number, out.dtype))


@spells(aten.arange.start_step, aten.arange.start, aten.arange.default)
def arange(out: Any, *ends: float, **_: Any) -> Value:
    start, step = (ends[0] if len(ends) > 1 else 0), (ends[2] if len(ends) > 2 else 1)
    place = c.position(tuple(out.shape), 0)
    return (
        c.add(c.mul(place, step, out.dtype), start, out.dtype)
        if (start, step) != (0, 1)
        else c.convert(place, out.dtype)
    )


# -- shapes ------------------------------------------------------------------------------------------


spells(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten._reshape_copy.default)(
    lambda out, x, shape: reshape(x, tuple(out.shape))
)
spells(aten.expand.default)(lambda out, x, shape, **_: expand(x, tuple(out.shape)))
spells(aten.permute.default)(lambda out, x, order: permute(x, order))
spells(aten.unsqueeze.default)(lambda out, x, dim: unsqueeze(x, dim))
spells(
    aten.alias.default, aten.detach.default, aten.clone.default, aten.contiguous.default, aten.lift_fresh_copy.default
)(lambda out, x, **_: x)
spells(aten._to_copy.default)(lambda out, x, **_: c.convert(x, out.dtype))


@spells(aten.t.default)
def t(out: Any, x: Value) -> Value:
    return permute(x, range(len(x.shape) - 1, -1, -1))


@spells(aten.transpose.int)
def transpose(out: Any, x: Value, a: int, b: int) -> Value:
    order = list(range(len(x.shape)))
    if order:
        order[a], order[b] = order[b], order[a]
    return permute(x, order) if order else x


@spells(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default)
def squeezed(out: Any, x: Value, over: int | Sequence[int] | None = None) -> Value:
    gone = range(len(x.shape)) if over is None else [over] if isinstance(over, int) else over
    return squeeze(x, [d % len(x.shape) for d in gone if x.shape[d] == 1]) if x.shape else x


@spells(aten.slice.Tensor)
def slice_(out: Any, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    dim %= len(x.shape)
    return take(x, dim, slice(start, end).indices(x.shape[dim])[0], out.shape[dim], step)


@spells(aten.select.int)
def select(out: Any, x: Value, dim: int, at: int) -> Value:
    dim %= len(x.shape)
    return squeeze(take(x, dim, at % x.shape[dim], 1), [dim])


@spells(aten.flip.default)
def flip(out: Any, x: Value, over: Sequence[int]) -> Value:
    gone = {d % len(x.shape) for d in over}
    index = [Index.of(d) * -1 + Index(n - 1) if d in gone else Index.of(d) for d, n in enumerate(x.shape)]
    return view(x, x.shape, index)


@spells(aten.split.Tensor, aten.split_with_sizes.default)
def split(out: Any, x: Value, size: int | Sequence[int], dim: int = 0) -> list[Value]:
    dim %= len(x.shape)
    ends = list(accumulate(part.shape[dim] for part in out))
    return [take(x, dim, end - part.shape[dim], part.shape[dim]) for part, end in zip(out, ends)]


@spells(aten.unbind.int)
def unbind(out: Any, x: Value, dim: int = 0) -> list[Value]:
    dim %= len(x.shape)
    return [squeeze(take(x, dim, at, 1), [dim]) for at in range(x.shape[dim])]


@spells(aten.cat.default)
def cat(out: Any, parts: Sequence[Value], dim: int = 0) -> Value:
    dim %= len(out.shape)
    placed, start = [], 0
    for part in parts:
        if len(part.shape) != len(out.shape):  # the empty vector, which goes with every shape
            continue
        index = [Index.of(d) + Index(start if d == dim else 0) for d in range(len(out.shape))]
        placed.append(spread(c.convert(part, out.dtype), index))
        start += part.shape[dim]
    return Placed(tuple(out.shape), out.dtype, None, tuple(placed))


@spells(aten.stack.default)
def stack(out: Any, parts: Sequence[Value], dim: int = 0) -> Value:
    return cat(out, [unsqueeze(part, dim % len(out.shape)) for part in parts], dim)


@spells(aten.constant_pad_nd.default)
def constant_pad_nd(out: Any, x: Value, pad: Sequence[int], number: float = 0) -> Value:
    starts = [0] * len(x.shape)
    for d, before in enumerate(pad[::2]):
        dim = len(x.shape) - 1 - d
        cut = max(-before, 0)
        x = take(x, dim, cut, min(x.shape[dim] - cut, out.shape[dim] - max(before, 0)))
        starts[dim] = max(before, 0)
    index = tuple(Index.of(d) + Index(start) for d, start in enumerate(starts))
    return Placed(tuple(out.shape), out.dtype, c.constant(number, out.dtype, tuple(out.shape)), ((x, index),))


@spells(aten.slice_scatter.default)
def slice_scatter(
    out: Any, x: Value, part: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    dim %= len(x.shape)
    first = slice(start, end).indices(x.shape[dim])[0]
    index = tuple(Index.of(d) * step + Index(first) if d == dim else Index.of(d) for d in range(len(x.shape)))
    return Placed(x.shape, out.dtype, x, ((expand(part, [part.shape[d] for d in range(len(x.shape))]), index),))


@spells(aten.select_scatter.default)
def select_scatter(out: Any, x: Value, part: Value, dim: int, at: int) -> Value:
    dim %= len(x.shape)
    return slice_scatter(out, x, unsqueeze(part, dim), dim, at % x.shape[dim], None)


# -- reductions --------------------------------------------------------------------------------------


def over_all(x: Value, over: int | Sequence[int] | None) -> list[int]:
    chosen = [over] if isinstance(over, int) else list(over or range(len(x.shape)))
    return [d % len(x.shape) for d in chosen] if x.shape else []


@spells(aten.sum.dim_IntList, aten.sum.default)
def total(out: Any, x: Value, over: Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> Value:
    return c.total(c.convert(x, out.dtype), over_all(x, over), keepdim)


@spells(aten.mean.dim, aten.mean.default)
def mean(out: Any, x: Value, over: Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> Value:
    return c.mean(c.convert(x, out.dtype), over_all(x, over), keepdim)


@spells(aten.amax.default, aten.max.default)
def amax(out: Any, x: Value, over: Sequence[int] = (), keepdim: bool = False) -> Value:
    return c.largest(x, over_all(x, over), keepdim)


@spells(aten.amin.default, aten.min.default)
def amin(out: Any, x: Value, over: Sequence[int] = (), keepdim: bool = False) -> Value:
    return reduce(x, over_all(x, over), "amin", x.dtype, keepdim) if x.shape else x


@spells(aten.argmax.default, aten.argmin.default)
def argmax(out: Any, x: Value, dim: int | None = None, keepdim: bool = False, kind: str = "argmax") -> Value:
    return reduce(x, over_all(x, dim), kind, torch.int64, keepdim) if x.shape else c.constant(0, torch.int64)


SPELLINGS[aten.argmin.default] = lambda out, x, dim=None, keepdim=False: argmax(out, x, dim, keepdim, "argmin")


@spells(aten.max.dim)
def max_dim(out: Any, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return amax(out[0], x, [dim], keepdim), argmax(out[1], x, dim, keepdim)


@spells(aten.min.dim)
def min_dim(out: Any, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return amin(out[0], x, [dim], keepdim), argmax(out[1], x, dim, keepdim, "argmin")


@spells(aten.var_mean.correction, aten.var.correction)
def var_mean(
    out: Any, x: Value, over: Sequence[int] | None = None, correction: float = 1, keepdim: bool = False
) -> Any:
    dims = over_all(x, over)
    centre = c.mean(x, dims, True)
    distance = c.sub(x, centre)
    count = math.prod(x.shape[d] for d in dims)
    variance = c.div(c.total(c.mul(distance, distance), dims, keepdim), c.constant(max(count - correction, 0), x.dtype))
    return (variance, centre if keepdim else squeeze(centre, dims)) if isinstance(out, tuple | list) else variance
