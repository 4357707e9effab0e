"""Arrays as what they are at an index: the few kinds of value that every operation is spelled with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import torch

from chainrule.compiling.c.index import Index, Indices

Shape = tuple[int, ...]
Number = float | int | bool


@dataclass(eq=False)
class Value:
    """An array. It has memory of its own only where the schedule gives it some."""

    shape: Shape
    dtype: torch.dtype
    name: str = field(default="", kw_only=True)
    serial: int = field(default_factory=count().__next__, kw_only=True)  # the order in which they were made

    @property
    def operands(self) -> tuple[Value, ...]:
        return ()

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(eq=False)
class Buffer(Value):
    """An argument of the step, contiguous in this shape."""


@dataclass(eq=False)
class Constant(Value):
    """One number everywhere."""

    number: Number


@dataclass(eq=False)
class Position(Value):
    """The place along one dimension."""

    dim: int


@dataclass(eq=False)
class Pointwise(Value):
    """A C expression of the operands, all of this shape (or constants), at the same index.

    `level` says how tightly the expression binds (9: a name or a call), `cost` about how many instructions it takes.
    """

    template: str
    level: int
    cost: int
    of: tuple[Value, ...]

    @property
    def operands(self) -> tuple[Value, ...]:
        return self.of


@dataclass(eq=False)
class View(Value):
    """`base` read elsewhere: for each of its dimensions an index whose atoms are the dimensions of the view by number,
    or an array of whole numbers, of the shape of the view."""

    base: Value
    index: tuple[Index | Value, ...]

    @property
    def operands(self) -> tuple[Value, ...]:
        return (self.base, *(i for i in self.index if isinstance(i, Value)))


@dataclass(eq=False)
class Reshape(Value):
    """The memory of `base` in another shape."""

    base: Value

    @property
    def operands(self) -> tuple[Value, ...]:
        return (self.base,)


@dataclass(eq=False)
class Reduce(Value):
    """`base` without `dims`: their sum, product, largest or smallest element, or where that one is."""

    base: Value
    dims: tuple[int, ...]
    kind: str

    @property
    def operands(self) -> tuple[Value, ...]:
        return (self.base,)


@dataclass(eq=False)
class Product(Value):
    """`a @ b`, matrices or stacks of as many matrices. `triangle` says what may be left out: "lower" and "upper" that
    `a` is 0 above, or below, its diagonal; "result" that nobody looks above the diagonal of the product."""

    a: Value
    b: Value
    triangle: str = ""

    @property
    def operands(self) -> tuple[Value, ...]:
        return (self.a, self.b)

    @property
    def flops(self) -> int:
        return 2 * self.numel * self.a.shape[-1]


@dataclass(eq=False)
class Placed(Value):
    """`start` (or memory as it is) with parts put into it: each part with the index in this array where its elements
    go, as in View. `kind` "=" or "+="."""

    start: Value | None
    parts: tuple[tuple[Value, tuple[Index | Value, ...]], ...]
    kind: str = "="

    @property
    def operands(self) -> tuple[Value, ...]:
        indices = [i for _, index in self.parts for i in index if isinstance(i, Value)]
        return (*((self.start,) if self.start else ()), *(part for part, _ in self.parts), *indices)


def dims(shape: Sequence[int]) -> Indices:
    return tuple(Index.of(d) for d in range(len(shape)))


def view(base: Value, shape: Sequence[int], index: Sequence[Index | Value]) -> Value:
    shape = tuple(shape)
    if isinstance(base, Constant):
        return Constant(shape, base.dtype, base.number)
    if shape == base.shape and tuple(index) == dims(shape):
        return base
    return View(shape, base.dtype, base, tuple(index))


def expand(x: Value, shape: Sequence[int]) -> Value:
    """Broadcasting: dimensions of size one, and missing ones, are repeated."""
    new = len(shape) - len(x.shape)
    return view(
        x,
        shape,
        [Index() if size == 1 and shape[new + d] != 1 else Index.of(new + d) for d, size in enumerate(x.shape)],
    )


def permute(x: Value, order: Sequence[int]) -> Value:
    order = [d % len(order) for d in order]
    return view(x, [x.shape[d] for d in order], [Index.of(order.index(d)) for d in range(len(order))])


def take(x: Value, dim: int, start: int, size: int, step: int = 1) -> Value:
    """`x[..., start : start + size * step : step, ...]`"""
    index = list(dims(x.shape))
    index[dim] = index[dim] * step + Index(start)
    return view(x, [size if d == dim else n for d, n in enumerate(x.shape)], index)


def squeeze(x: Value, gone: Sequence[int]) -> Value:
    kept = [d for d in range(len(x.shape)) if d not in gone]
    return view(
        x, [x.shape[d] for d in kept], [Index.of(kept.index(d)) if d in kept else Index() for d in range(len(x.shape))]
    )


def unsqueeze(x: Value, dim: int) -> Value:
    dim %= len(x.shape) + 1
    shape = [*x.shape[:dim], 1, *x.shape[dim:]]
    return view(x, shape, [Index.of(d + (d >= dim)) for d in range(len(x.shape))])


def reshape(x: Value, shape: Sequence[int]) -> Value:
    """The same elements in row-major order; an index where dimensions are only split or of size one, else a new shape
    for the memory."""
    shape = tuple(shape)
    if shape == x.shape or isinstance(x, Constant):
        return view(x, shape, dims(shape))
    index: list[Index] = []
    new = 0
    for size in x.shape if x.numel else ():
        position, covered = Index(), 1
        while covered < size and new < len(shape):
            covered *= shape[new]
            position = position * shape[new] + Index.of(new) if shape[new] > 1 else position
            new += 1
        if covered != size:
            break
        index.append(position)
    if x.numel and len(index) == len(x.shape):
        return view(x, shape, index)
    if isinstance(x, Reshape):
        return reshape(x.base, shape)
    return Reshape(shape, x.dtype, x)


def spread(part: Value, index: Sequence[Index | Value]) -> tuple[Value, tuple[Index | Value, ...]]:
    """`part` and where it goes, both by the dimensions that it had before a reshape made fewer of them: so it needs no
    memory of its own."""
    places: list[Index] = []
    if isinstance(part, Reshape) and part.numel:
        old = 0
        for size in part.shape:
            place, covered = Index(), 1
            while covered < size and old < len(part.base.shape):
                covered *= part.base.shape[old]
                place = place * part.base.shape[old] + Index.of(old)
                old += 1
            if covered == size:
                places.append(place)
        while old < len(part.base.shape) and part.base.shape[old] == 1:
            old += 1
        if len(places) == len(part.shape) and old == len(part.base.shape) and all(isinstance(i, Index) for i in index):
            return part.base, tuple(i.through(tuple(places)) for i in index if isinstance(i, Index))
    return part, tuple(index)


def reduce(x: Value, over: Sequence[int], kind: str, dtype: torch.dtype, keepdim: bool = False) -> Value:
    over = tuple(sorted({d % len(x.shape) for d in over})) if x.shape else ()
    shape = tuple(n for d, n in enumerate(x.shape) if d not in over)
    result: Value = Reduce(shape, dtype, x, over, kind)
    for d in over if keepdim else ():
        result = unsqueeze(result, d)
    return result
