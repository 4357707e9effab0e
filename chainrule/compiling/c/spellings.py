"""Operations of aten as values: arithmetic and products. A spelling is given the meta of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.values import Value, squeeze, unsqueeze

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
    return c.add(x, c.mul(y, alpha, out.dtype) if alpha != 1 else y, out.dtype)


@spells(aten.sub.Tensor, aten.sub.Scalar)
def sub(out: Any, x: c.Operand, y: c.Operand, alpha: float = 1) -> Value:
    return c.sub(x, c.mul(y, alpha, out.dtype) if alpha != 1 else y, out.dtype)


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
                      "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh", "erfc": "erfc",
                      "expm1": "expm1", "log1p": "log1p", "log2": "log2", "log10": "log10", "exp2": "exp2"}.items():  # fmt: skip

    @spells(getattr(aten, name).default)
    def _library(out: Any, x: Value, spelled: str = spelled) -> Value:
        if not out.dtype.is_floating_point:
            raise NotImplementedError
        return c.function(spelled, c.convert(x, out.dtype), 1 if spelled in ("fabs", "floor", "ceil", "trunc") else 40)


for name, of in {"exp": c.exp, "log": c.log, "tanh": c.tanh, "erf": c.erf}.items():
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
