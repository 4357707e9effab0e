"""Arithmetic on values: what the spellings of operations are written in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from chainrule.compiling.c.index import Index
from chainrule.compiling.c.values import (
    Constant,
    Pointwise,
    Position,
    Product,
    Shape,
    Value,
    View,
    expand,
    permute,
    reduce,
    unsqueeze,
    view,
)

C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.uint8: "uint8_t",
    torch.bool: "bool",
}
Operand = Value | float | int | bool


def broadcast(*shapes: Shape) -> Shape:
    """The shape that arrays of these shapes have together."""
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def constant(number: float | int | bool, dtype: torch.dtype, shape: Shape = ()) -> Value:
    return Constant(shape, dtype, number)


def operands(*of: Operand, dtype: torch.dtype | None = None) -> list[Value]:
    """The values as arrays of one shape and type: broadcast and promoted."""
    values = [v for v in of if isinstance(v, Value)]
    if dtype is None:
        samples = [torch.empty((1,) * bool(v.shape), dtype=v.dtype) if isinstance(v, Value) else v for v in of]
        dtype = samples[0].dtype if len(samples) == 1 and isinstance(samples[0], torch.Tensor) else None
        for i, left in enumerate(samples[:-1]):
            pair = torch.result_type(left, samples[i + 1])
            dtype = pair if dtype is None else torch.promote_types(dtype, pair)
    assert dtype is not None
    shape = broadcast(*(v.shape for v in values))
    return [convert(expand(v, shape), dtype) if isinstance(v, Value) else constant(v, dtype, shape) for v in of]


def point(template: str, *of: Value, level: int = 9, cost: int = 1, dtype: torch.dtype | None = None) -> Value:
    return Pointwise(of[0].shape, dtype or of[0].dtype, template, level, cost, of)


def convert(x: Value, dtype: torch.dtype) -> Value:
    if x.dtype == dtype:
        return x
    if isinstance(x, Constant):
        number = bool(x.number) if dtype == torch.bool else x.number if dtype.is_floating_point else int(x.number)
        return constant(number, dtype, x.shape)
    if dtype == torch.bool:
        return point("{0} != 0", x, level=3, dtype=dtype)
    return point(f"({C_TYPES[dtype]}) {{0}}", x, level=8, dtype=dtype)


def add(x: Operand, y: Operand, dtype: torch.dtype | None = None) -> Value:
    x, y = operands(x, y, dtype=dtype)
    return point("{0} | {1}", x, y, level=2) if x.dtype == torch.bool else point("{0} + {1}", x, y, level=5)


def sub(x: Operand, y: Operand, dtype: torch.dtype | None = None) -> Value:
    x, y = operands(x, y, dtype=dtype)
    return point("{0} - {1}", x, y, level=5)


def mul(x: Operand, y: Operand, dtype: torch.dtype | None = None) -> Value:
    x, y = operands(x, y, dtype=dtype)
    for one, other in ((x, y), (y, x)):
        if isinstance(one, Constant) and one.number == 1:
            return other
    return point("{0} & {1}", x, y, level=2) if x.dtype == torch.bool else point("{0} * {1}", x, y, level=6)


def div(x: Operand, y: Operand, dtype: torch.dtype | None = None) -> Value:
    if dtype is None:
        values = operands(x, y)
        dtype = values[0].dtype if values[0].dtype.is_floating_point else torch.get_default_dtype()
    x, y = operands(x, y, dtype=dtype)
    if isinstance(y, Constant) and math.frexp(abs(y.number))[0] == 0.5:  # by a power of two: exact as a product
        return mul(x, 1 / y.number)
    return point("{0} / {1}", x, y, level=6, cost=4)


def neg(x: Value) -> Value:
    return point("- {0}", x, level=8)  # apart, for -- is another operator


def compare(sign: str, x: Operand, y: Operand) -> Value:
    x, y = operands(x, y)
    return point(f"{{0}} {sign} {{1}}", x, y, level=3, dtype=torch.bool)


def both(x: Value, y: Value) -> Value:
    return point("{0} & {1}", *operands(x, y, dtype=torch.bool), level=2)


def where(condition: Value, x: Operand, y: Operand, dtype: torch.dtype | None = None) -> Value:
    x, y = operands(x, y, dtype=dtype)
    shape = broadcast(condition.shape, x.shape)
    return point("{0} ? {1} : {2}", *(expand(v, shape) for v in (condition, x, y)), level=0, dtype=x.dtype)


def function(name: str, x: Value, cost: int = 12) -> Value:
    """A function of C's library, by the name that it has for doubles."""
    return point(f"{name}{'f' if x.dtype == torch.float32 else ''}({{0}})", x, cost=cost)


def own_function(name: str, x: Value, cost: int = 12) -> Value:
    """A function whose spelling for floats is in `mathematics.py`, so that loops over it become vector instructions."""
    return point(f"{name}_float({{0}})", x, cost=cost) if x.dtype == torch.float32 else function(name, x, cost)


def exp(x: Value) -> Value:
    return own_function("exp", x)


def log(x: Value) -> Value:
    return own_function("log", x)


def tanh(x: Value) -> Value:
    return own_function("tanh", x, 20)


def erf(x: Value) -> Value:
    return own_function("erf", x, 20)


def sqrt(x: Value) -> Value:
    return function("sqrt", x, 6)


def maximum(x: Operand, y: Operand) -> Value:
    x, y = operands(x, y)
    return point(f"larger_{C_TYPES[x.dtype]}({{0}}, {{1}})", x, y)


def minimum(x: Operand, y: Operand) -> Value:
    x, y = operands(x, y)
    return point(f"smaller_{C_TYPES[x.dtype]}({{0}}, {{1}})", x, y)


def total(x: Value, over: Sequence[int], keepdim: bool = False) -> Value:
    return reduce(x, over, "sum", x.dtype, keepdim) if x.shape and len(over) else x


def mean(x: Value, over: Sequence[int], keepdim: bool = False) -> Value:
    count = math.prod(x.shape[d] for d in over) if x.shape else 1
    return div(total(x, over, keepdim), constant(count, x.dtype))


def largest(x: Value, over: Sequence[int], keepdim: bool = False) -> Value:
    return reduce(x, over, "amax", x.dtype, keepdim) if x.shape and len(over) else x


def top(x: Value, over: Sequence[int]) -> Value:
    """The largest number, kept as a dimension, where it makes no difference that NaN is passed over."""
    return reduce(x, over, "top" if x.dtype.is_floating_point else "amax", x.dtype, True) if x.shape else x


def position(shape: Shape, dim: int) -> Value:
    return Position(shape, torch.int64, dim)


def lookup(x: Value, dim: int, where_to: Value) -> Value:
    """`x` where along `dim` the index is `where_to`, an array that has all other dimensions too."""
    index: list[Index | Value] = [Index.of(d) for d in range(len(x.shape))]
    index[dim] = where_to
    return view(x, where_to.shape, index)


def unit_stride(x: Value) -> int | None:
    """The dimension along which neighbours are neighbours in memory, should `x` be read where it lies."""
    if not isinstance(x, View):
        return len(x.shape) - 1
    base = unit_stride(x.base)
    index = x.index[base] if base is not None and base >= 0 else None
    if not isinstance(index, Index):
        return None
    return next((d for d in range(len(x.shape)) if index.factor(d) == 1), None)


WIDE = 16  # numbers in a vector, of the widest


def matmul(a: Value, b: Value, triangle: str = "") -> Value:
    """The product of matrices, or of as many matrices. Rows of `b` are read as vectors, so that its columns should be
    neighbours in memory: where only the transposed product has that, or the smaller packing, it is what is computed."""
    rank, (rows, depth), columns = len(a.shape), a.shape[-2:], b.shape[-1]
    if rows == 1 or columns == 1 or depth == 1:
        left, right = unsqueeze(a, rank), unsqueeze(b, rank - 2)
        return total(mul(left, right), [rank - 1])
    flip = [*range(rank - 2), rank - 1, rank - 2]
    a_packed, b_packed = (
        unit_stride(a) == rank - 1,
        unit_stride(b) != rank - 1,
    )  # had a to be packed for the transposed?
    wasted = -(-columns // WIDE) * WIDE * rows > 1.1 * -(-rows // WIDE) * WIDE * columns  # of vectors, were it not
    if (b_packed and (not a_packed or rows < columns)) or (not a_packed and not b_packed and wasted):
        return permute(Product((*a.shape[:-2], columns, rows), a.dtype, permute(b, flip), permute(a, flip)), flip)
    return Product((*a.shape[:-1], columns), a.dtype, a, b, triangle)
