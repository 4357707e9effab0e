"""Which values get memory of their own: the rest is computed where it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from chainrule.compiling.c.index import Index, Indices
from chainrule.compiling.c.values import (
    Buffer,
    Constant,
    Placed,
    Pointwise,
    Position,
    Product,
    Reduce,
    Reshape,
    Value,
    View,
    dims,
)

CHEAP = 2  # instructions that may be done again in every loop that reads the value


@dataclass(frozen=True)
class Home:
    """Memory of a value, and for each dimension of the memory an index whose atoms are dimensions of the value."""

    buffer: Buffer
    index: Indices

    def at(self, index: Indices) -> Indices:
        return tuple(i.through(index) for i in self.index)


def reachable(roots: Iterable[Value]) -> list[Value]:
    """Every value that the roots are computed from, operands first."""
    seen: set[Value] = set()
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if value not in seen:
            seen.add(value)
            waiting += value.operands
    return sorted(seen, key=lambda v: v.serial)


def in_memory(value: Value) -> Value:
    """What must be in memory for a product to read `value` by a pointer and strides."""
    while isinstance(value, View) and all(isinstance(i, Index) for i in value.index):
        value = value.base
    return value.base if isinstance(value, Reshape) else value


def stored_values(roots: list[Value]) -> list[Value]:
    """The values that are stored: results, operands of products, and what would be costly to compute twice."""
    values = reachable(roots)
    forced = set(roots)
    users: dict[Value, list[Value]] = {v: [] for v in values}
    for value in values:
        for operand in value.operands:
            users[operand].append(value)
        if isinstance(value, Product):
            forced |= {in_memory(value.a), in_memory(value.b)}
        if isinstance(value, Reshape):
            forced.add(value.base)
    cost: dict[Value, int] = {}
    for value in values:
        cost[value] = sum(cost[o] for o in set(value.operands)) + (value.cost if isinstance(value, Pointwise) else 0)
        if isinstance(value, Reduce | Product | Placed | Buffer):
            cost[value] = 0
        if isinstance(value, Placed):  # where elements go is found in loops of vectors, what goes there one by one
            forced |= {i for _, index in value.parts for i in index if isinstance(i, Pointwise) and cost[i] >= 4}
    stored: set[Value] = set()
    read_in: dict[Value, set[Value]] = {}
    for value in reversed(values):
        read_in[value] = set().union(*({u} if u in stored else read_in[u] for u in users[value]))
        if isinstance(value, Buffer) or (isinstance(value, Constant | Position | Reshape) and value not in forced):
            continue
        repeated = any(isinstance(u, View) and u.numel > value.numel for u in users[value])
        costly = isinstance(value, Pointwise) and (
            (len(read_in[value]) > 1 and cost[value] > CHEAP) or (repeated and cost[value] >= 4)
        )
        if value in forced or costly or isinstance(value, Reduce | Product | Placed):
            stored.add(value)
    return [v for v in values if v in stored]


Note = Callable[[Value, Buffer, Indices | None], None]


def note_reads(top: Value, index: Indices, homes: Mapping[Value, Home], note: Note, making: Value | None) -> None:
    """Tells `note` of every element that computing `top` at the index reads: whose, in which memory, where (None: not
    by the dimensions of the memory). `making` is not read from its home: it is being computed."""
    seen: set[tuple[Value, Indices]] = set()

    def walk(value: Value, index: Indices) -> None:
        if (value, index) in seen:
            return
        seen.add((value, index))
        if value in homes and value is not making:
            note(value, homes[value].buffer, homes[value].at(index))
        elif isinstance(value, Buffer):
            note(value, value, index)
        elif isinstance(value, Reshape):
            note(value.base, homes[value.base].buffer if value.base in homes else value.base, None)  # type: ignore[arg-type]
        elif isinstance(value, View):
            places = []
            for i in value.index:
                if isinstance(i, Value):
                    walk(i, index)
                    places.append(Index.of(("element of", id(i), index)))
                else:
                    places.append(i.through(index))
            walk(value.base, tuple(places))
        else:
            for operand in value.operands:
                walk(operand, index)

    walk(top, index)


def own_memory(value: Value, name: str) -> Home:
    return Home(Buffer(value.shape, value.dtype, name=name), dims(value.shape))


def size_of(buffer: Buffer) -> int:
    return math.prod(buffer.shape) * torch.empty((), dtype=buffer.dtype).element_size()
