"""The statements of the step: each stores one value, in loops."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from chainrule.compiling.c.index import Index, Indices, flat
from chainrule.compiling.c.storage import Home, note_reads
from chainrule.compiling.c.values import Buffer, Constant, Placed, Product, Reduce, Value, View

LOOPS = tuple("ijklmnopqtuv")  # the variable of a loop, by its depth
PARALLEL = 1 << 19  # multiplications or elements of a nest that are worth waking other threads for
LARGEST_LOCAL = 16384  # elements of an array on the stack
ACCURATE = 4096  # sums of more floats than these are taken in doubles

Read = tuple[Value, Buffer, Indices | None]


@dataclass(eq=False)
class Member:
    """One statement. `index` is where `value` is computed, `store` where in the memory of `home` it goes; both in the
    variables of the loops. The loops from `start` on are a reduction's."""

    target: Value
    home: Home
    value: Value
    kind: str  # "map", "reduce", "product", "place"
    extents: list[int] = field(default_factory=list)
    index: Indices = ()
    store: tuple[Index | Value, ...] = ()
    start: int | None = None
    inner: bool = False  # the innermost loop of a reduction runs over elements of the result
    reads: list[Read] = field(default_factory=list)

    @property
    def work(self) -> int:
        """About how many instructions the statement takes, were there no vectors."""
        inner = self.value.shape[-1] * self.value.a.shape[-1] if isinstance(self.value, Product) else 8
        return math.prod(self.extents) * inner

    @property
    def parallel(self) -> bool:
        """Whether turns of the outermost loop write to different places, or add to sums that may be taken in parts."""
        whole = all(isinstance(i, Index) for i in self.store)
        parts = self.start != 0 or (isinstance(self.target, Reduce) and "arg" not in self.target.kind)
        return bool(self.extents) and parts and (self.kind != "place" or whole)

    @property
    def apart(self) -> bool:
        """Whether turns of the innermost loop write to different places."""
        var = LOOPS[len(self.extents) - 1]
        if any(isinstance(i, Value) and _varies(i, self.index, var) for i in self.store):
            return False
        return any(isinstance(i, Index) and i.factor(var) for i in self.store)


def _varies(value: Value, index: Indices, var: str) -> bool:
    """Whether an array at the index may have another element in each turn of the loop."""
    while isinstance(value, View) and all(isinstance(i, Index) for i in value.index):
        index = tuple(i.through(index) for i in value.index if isinstance(i, Index))
        value = value.base
    return any(i.factor(var) for i in index)


def _loops(shape: tuple[int, ...], order: list[int]) -> tuple[list[int], Indices]:
    """The extents of loops over the dimensions in that order, and the index that they count; none for size one."""
    looped = [d for d in order if shape[d] != 1]
    index = tuple(Index.of(LOOPS[looped.index(d)]) if d in looped else Index() for d in range(len(shape)))
    return [shape[d] for d in looped], index


def _read(value: Value, index: Indices, homes: Mapping[Value, Home], making: Value | None = None) -> list[Read]:
    reads: list[Read] = []
    note_reads(value, index, homes, lambda *read: reads.append(read), making)
    return reads


def statements(value: Value, home: Home, homes: Mapping[Value, Home]) -> list[Member]:
    """The statements that store a value."""
    if isinstance(value, Placed):
        return _placed(value, home, homes)
    if isinstance(value, Product):
        return [_product(value, home, homes)]
    if isinstance(value, Reduce) and any(value.base.shape[d] != 1 for d in value.dims):
        return [_reduction(value, home, homes)]
    if isinstance(value, Reduce):
        only = value.base if "arg" not in value.kind else Constant(value.base.shape, value.dtype, 0)
        return [assignment(value, only, home, homes)]
    return [assignment(value, value, home, homes)]


def assignment(target: Value, value: Value, home: Home, homes: Mapping[Value, Home]) -> Member:
    """`home` = `value`, which has the shape of the target or more dimensions of size one."""
    order = list(range(len(value.shape)))
    if value.shape == target.shape:
        place = flat(home.at(tuple(Index.of(d) for d in order)), home.buffer.shape)
        order.sort(key=lambda d: -place.factor(d))
    extents, index = _loops(value.shape, order)
    gone = target.dims if isinstance(target, Reduce) else ()
    kept = tuple(i for d, i in enumerate(index) if d not in gone)
    reads = _read(value, index, homes, target)
    return Member(target, home, value, "map", extents, index, home.at(kept), reads=reads)


def _reduction(value: Reduce, home: Home, homes: Mapping[Value, Home]) -> Member:
    base = value.base
    kept = [d for d in range(len(base.shape)) if d not in value.dims]
    kept_loops = [d for d in kept if base.shape[d] != 1]
    reads = _read(base, tuple(Index.of(("dim", d)) for d in range(len(base.shape))), homes)
    places = [flat(index, buffer.shape) for _, buffer, index in reads if index is not None]

    def jumps(dim: int) -> tuple[int, int]:
        """How many reads go through memory in leaps along the dimension, and how few from neighbour to neighbour."""
        factors = [place.factor(("dim", dim)) for place in places]
        return sum(f not in (0, 1) for f in factors), -factors.count(1)

    last = min((d for d in value.dims if base.shape[d] != 1), key=jumps)
    inner = min(kept_loops, key=jumps, default=-1)
    if inner >= 0 and jumps(inner) < jumps(last) and base.shape[inner] <= LARGEST_LOCAL and "arg" not in value.kind:
        order = [*(d for d in kept if d != inner), *value.dims, inner]
    else:
        inner = -1
        order = (
            [*kept, *(d for d in value.dims if d != last), last] if "arg" not in value.kind else [*kept, *value.dims]
        )
    extents, index = _loops(base.shape, order)
    store = home.at(tuple(index[d] for d in kept))
    start = len(kept_loops) - (inner >= 0)
    return Member(value, home, base, "reduce", extents, index, store, start, inner >= 0, _read(base, index, homes))


def _product(value: Product, home: Home, homes: Mapping[Value, Home]) -> Member:
    extents, index = _loops(value.shape, list(range(len(value.shape) - 1)))
    (row, depth, column) = index[-2], Index.of("depth"), Index.of("column")
    reads = _read(value.a, (*index[:-2], row, depth), homes) + _read(value.b, (*index[:-2], depth, column), homes)
    return Member(value, home, value, "product", extents, index, home.at((*index[:-1], column)), reads=reads)


def _placed(value: Placed, home: Home, homes: Mapping[Value, Home]) -> list[Member]:
    members = []
    if value.start is not None:
        members.append(assignment(value, value.start, home, homes))
    for part, index in value.parts:
        extents, at = _loops(part.shape, list(range(len(part.shape))))
        store = tuple(i if isinstance(i, Value) else i.through(at) for i in index)
        reads = _read(part, at, homes)
        for i in index:
            if isinstance(i, Value):
                reads += _read(i, at, homes)
        members.append(Member(value, home, part, "place", extents, at, store, reads=reads))
    return members
