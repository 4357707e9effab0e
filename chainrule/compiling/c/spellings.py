"""Operations of aten as values: arithmetic, shapes and reductions. A spelling is given the meta of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.index import Index
from chainrule.compiling.c.values import Placed, Value, expand, permute, reduce, reshape, squeeze, take, unsqueeze, view

aten = torch.ops.aten
Spelling = Callable[..., Any]
SPELLINGS: dict[Any, Spelling] = {}


def spells(*overloads: Any) -> Callable[[Spelling], Spelling]:
    def note(spelling: Spelling) -> Spelling:
        SPELLINGS.update(dict.fromkeys(overloads, spelling))
        return spelling

    return note


# -- arithmetic --------------------------------------------------------------------------------------


@spells(aten.add.Tensor, aten.add.Scalar)
def add(out: Any, x: c.Operand, y: c.Operand, alpha: float = 1) -> Value:
    return c.add(
        x,
        c.mul(y, alpha, out.dtype) if isinstance(y, Value) and alpha != 1 else y * alpha if alpha != 1 else y,
        out.dtype,
    )


@spells(aten.sub.Tensor, aten.sub.Scalar)
def sub(out: Any, x: c.Operand, y: c.Operand, alpha: float = 1) -> Value:
    return c.sub(
        x,
        c.mul(y, alpha, out.dtype) if isinstance(y, Value) and alpha != 1 else y * alpha if alpha != 1 else y,
        out.dtype,
    )


@spells(aten.rsub.Scalar, aten.rsub.Tensor)
def rsub(out: Any, x: c.Operand, y: c.Operand, alpha: float = 1) -> Value:
    return sub(out, y, x, alpha)


@spells(aten.mul.Tensor, aten.mul.Scalar)
def mul(out: Any, x: c.Operand, y: c.Operand) -> Value:
    return c.mul(x, y, out.dtype)


@spells(aten.div.Tensor, aten.div.Scalar)
def div(out: Any, x: c.Operand, y: c.Operand) -> Value:
    return c.div(x, y, out.dtype)


@spells(aten.pow.Tensor_Scalar)
def power(out: Any, x: Value, n: float) -> Value:
    x = c.convert(x, out.dtype)
    if n == 0.5:
        return c.sqrt(x)
    if n == int(n) and 0 < abs(n) <= 8 and (n > 0 or x.dtype.is_floating_point):
        result, square = None, x
        for bit in reversed(bin(int(abs(n)))[2:]):
            if bit == "1":
                result = square if result is None else c.mul(result, square)
            square = c.mul(square, square)
        assert result is not None
        return result if n > 0 else c.div(1.0, result, out.dtype)
    return power_of(out, x, n)


@spells(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def power_of(out: Any, x: c.Operand, y: c.Operand) -> Value:
    x, y = c.operands(x, y, dtype=out.dtype)
    if not out.dtype.is_floating_point:
        raise NotImplementedError
    return c.point(f"pow{'f' if out.dtype == torch.float32 else ''}({{0}}, {{1}})", x, y, cost=40)


SLOPELESS = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "nearbyint"}
for name, spelled in {**SLOPELESS, "abs": "fabs", "sqrt": "sqrt", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin",
                      "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "erf": "erf", "erfc": "erfc",
                      "expm1": "expm1", "log1p": "log1p", "log2": "log2", "log10": "log10", "exp2": "exp2"}.items():  # fmt: skip

    @spells(getattr(aten, name).default)
    def _library(out: Any, x: Value, spelled: str = spelled) -> Value:
        if not out.dtype.is_floating_point:
            raise NotImplementedError
        return c.function(spelled, c.convert(x, out.dtype), 1 if spelled in ("fabs", "floor", "ceil", "trunc") else 40)


for name, of in {"exp": c.exp, "log": c.log, "tanh": c.tanh}.items():
    spells(getattr(aten, name).default)(lambda out, x, of=of: of(c.convert(x, out.dtype)))


@spells(aten.sigmoid.default)
def sigmoid(out: Any, x: Value) -> Value:
    return c.div(1.0, c.add(c.exp(c.neg(c.convert(x, out.dtype))), 1.0))


@spells(aten.rsqrt.default)
def rsqrt(out: Any, x: Value) -> Value:
    return c.div(1.0, c.sqrt(c.convert(x, out.dtype)))


@spells(aten.reciprocal.default)
def reciprocal(out: Any, x: Value) -> Value:
    return c.div(1.0, c.convert(x, out.dtype))


@spells(aten.neg.default)
def neg(out: Any, x: Value) -> Value:
    return c.neg(x)


@spells(aten.sign.default, aten.sgn.default)
def sign(out: Any, x: Value) -> Value:
    return c.sub(c.convert(c.compare(">", x, 0), out.dtype), c.convert(c.compare("<", x, 0), out.dtype))


@spells(aten.relu.default)
def relu(out: Any, x: Value) -> Value:
    return c.where(c.compare("<", x, 0), 0, x, out.dtype)


@spells(aten.clamp.default, aten.clamp.Tensor, aten.hardtanh.default)
def clamp(out: Any, x: Value, low: c.Operand | None = None, high: c.Operand | None = None) -> Value:
    x = c.convert(x, out.dtype)
    if low is not None:
        x = c.where(c.compare("<", x, low), low, x, out.dtype) if not isinstance(low, Value) else c.maximum(x, low)
    if high is not None:
        x = c.where(c.compare(">", x, high), high, x, out.dtype) if not isinstance(high, Value) else c.minimum(x, high)
    return x


@spells(aten.clamp_min.default)
def clamp_min(out: Any, x: Value, low: float) -> Value:
    return clamp(out, x, low)


@spells(aten.clamp_max.default)
def clamp_max(out: Any, x: Value, high: float) -> Value:
    return clamp(out, x, None, high)


spells(aten.maximum.default)(lambda out, x, y: c.maximum(x, y))
spells(aten.minimum.default)(lambda out, x, y: c.minimum(x, y))
for name, written in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    spells(getattr(aten, name).Tensor, getattr(aten, name).Scalar)(
        lambda out, x, y, written=written: c.compare(written, x, y)
    )


@spells(aten.logical_not.default, aten.bitwise_not.default)
def logical_not(out: Any, x: Value) -> Value:
    if x.dtype != torch.bool:
        raise NotImplementedError
    return c.point("!{0}", x, level=8)


@spells(aten.logical_and.default, aten.bitwise_and.Tensor)
def logical_and(out: Any, x: Value, y: Value) -> Value:
    if out.dtype != torch.bool:
        raise NotImplementedError
    return c.both(x, y)


@spells(aten.logical_or.default, aten.bitwise_or.Tensor)
def logical_or(out: Any, x: Value, y: Value) -> Value:
    if out.dtype != torch.bool:
        raise NotImplementedError
    return c.add(x, y, torch.bool)


@spells(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(out: Any, x: Value, y: Value, weight: c.Operand) -> Value:
    return c.add(x, c.mul(c.sub(y, x), weight, out.dtype))


@spells(aten.isnan.default)
def isnan(out: Any, x: Value) -> Value:
    return c.compare("!=", x, x)


@spells(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf)
def where(out: Any, condition: Value, x: c.Operand, y: c.Operand) -> Value:
    return c.where(condition, x, y, out.dtype)


@spells(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(out: Any, x: Value, mask: Value, number: c.Operand) -> Value:
    return c.where(mask, number, x, out.dtype)


@spells(aten.threshold_backward.default)
def threshold_backward(out: Any, g: Value, x: Value, threshold: float) -> Value:
    return c.where(c.compare("<=", x, threshold), 0, g, out.dtype)


@spells(aten.sigmoid_backward.default)
def sigmoid_backward(out: Any, g: Value, y: Value) -> Value:
    return c.mul(c.mul(g, c.sub(1, y)), y)


@spells(aten.tanh_backward.default)
def tanh_backward(out: Any, g: Value, y: Value) -> Value:
    return c.mul(g, c.sub(1, c.mul(y, y)))


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
        placed.append((c.convert(part, out.dtype), tuple(index)))
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


# -- products ----------------------------------------------------------------------------------------


spells(aten.mm.default, aten.bmm.default)(lambda out, a, b: c.matmul(a, b))
spells(aten.mv.default)(lambda out, a, b: squeeze(c.matmul(a, unsqueeze(b, 1)), [1]))
spells(aten.dot.default)(lambda out, a, b: c.total(c.mul(a, b), [0]))


@spells(aten.addmm.default, aten.baddbmm.default)
def addmm(out: Any, x: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    product = c.mul(c.matmul(a, b), alpha)
    return c.add(product, c.mul(x, beta)) if beta else product


@spells(aten.addmv.default)
def addmv(out: Any, x: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    return c.add(c.mul(squeeze(c.matmul(a, unsqueeze(b, 1)), [1]), alpha), c.mul(x, beta))
