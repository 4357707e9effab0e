"""Operations of aten as values: where elements are chosen by arrays of indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.index import Index
from chainrule.compiling.c.spellings import aten, spells
from chainrule.compiling.c.values import Placed, Value, expand, reshape, take, unsqueeze, view


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
    if any(i.dtype is torch.bool for i in given):
        raise NotImplementedError
    places = [d for d, i in enumerate(indices) if i is not None]
    together = c.broadcast(*(i.shape for i in given))
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
