"""Picking elements and writing them, in the words of NumPy."""

from __future__ import annotations

from typing import Any

import torch

from chainrule.show import numpy_helpers as helpers
from chainrule.show.numpy_shapes import at
from chainrule.show.numpy_words import OPERATIONS, Library, Write, helper, spelled
from chainrule.show.terms import Term, known, rank

_ALL = slice(None)


@spelled("getitem")
def getitem(np: Library, x: Any, index: Any) -> Any:
    parts = list(index) if isinstance(index, tuple) else [index]
    if mixed(parts):  # an integer is one more array index to NumPy, and an axis gone before to torch
        return NotImplemented
    return x[tuple(np_index(np, p) for p in parts) if isinstance(index, tuple) else np_index(np, index)]


def mixed(parts: list[Any]) -> bool:
    """Whether integers and arrays of indices stand apart from each other."""
    arrays = [i for i, p in enumerate(parts) if isinstance(p, list) or isinstance(known(p), torch.Tensor)]
    integers = [i for i, p in enumerate(parts) if isinstance(known(p), int) and not isinstance(known(p), bool)]
    picked = sorted(arrays + integers)
    return bool(arrays and integers) and picked != list(range(picked[0], picked[-1] + 1))


def np_index(np: Library, part: Any) -> Any:
    by: Any = np._by
    return by.index(np, part)


@spelled("select")
def select(np: Library, x: Any, dim: int, index: Any) -> Any:
    return x[at(dim, rank(x), index)]


@spelled("narrow")
def narrow(np: Library, x: Any, dim: int, start: Any, length: Any) -> Any:
    return x[at(dim, rank(x), span(x, dim, start, length))]


def span(x: Any, dim: int, start: Any, length: Any) -> slice:
    if not isinstance(start, Term) and start == 0:
        return slice(None, length)
    return slice(start, start + length)


@spelled("unfold")
def unfold(np: Library, x: Any, dim: int, size: int, step: int) -> Any:
    if rank(x) == 0:
        return NotImplemented
    first = (x.shape[dim] - size) // step + 1
    starts = np.arange(first) if step == 1 else step * np.arange(first)
    windows = x[at(dim, rank(x), starts[:, None] + np.arange(size))]
    return windows if dim % rank(x) == rank(x) - 1 else np.moveaxis(windows, dim % rank(x) + 1, -1)


@spelled("take_along_dim")
def take_along_dim(np: Library, x: Any, index: Any, dim: Any = None) -> Any:
    return NotImplemented if dim is None else np.take_along_axis(x, index, axis=dim)


@spelled("gather")
def gather(np: Library, x: Any, dim: int, index: Any, sparse_grad: Any = False) -> Any:
    if others_agree(x, index, dim):
        return np.take_along_axis(x, index, axis=dim)
    return x[helper(np, helpers.along)(index, dim)]


def others_agree(x: Any, index: Any, dim: int) -> bool:
    """Whether an index has the shape of the array but along one axis."""
    ours, theirs = list(known(x).shape), list(known(index).shape)
    if not ours or not theirs:
        return False
    ours[dim] = theirs[dim] = 0
    return ours == theirs


def _take(np: Library, x: Any, dim: int, index: Any) -> Any:
    return x[at(dim, rank(x), index)]


@spelled("embedding")
def embedding(np: Library, tokens: Any, table: Any, padding_idx: Any = None) -> Any:
    return table[tokens]


OPERATIONS |= {
    "index_select": _take,
    "take": lambda np, x, index: x.reshape(-1)[index],
    "masked_select": lambda np, x, mask: x[mask] if rank(x) == rank(mask) else NotImplemented,
    "nonzero": lambda np, x: np.argwhere(x),
    "argwhere": lambda np, x: np.argwhere(x),
}


# -- writing -------------------------------------------------------------------------------------


@spelled("index_put", writes=True)
def index_put(np: Library, x: Any, indices: Any, value: Any, accumulate: Any = False) -> Any:
    parts = [_ALL if i is None else i for i in indices]
    index = tuple(parts) if len(parts) > 1 else parts[0]
    if not accumulate:
        return Write(np, x, "set", index, value)
    once = any(made_by(i, "arange") and rank(i) == 1 for i in parts) and all(rank(i) <= 1 for i in parts)
    mask = any(isinstance(known(i), torch.Tensor) and known(i).dtype == torch.bool for i in parts)
    return Write(np, x, "add" if once or mask else "add.at", index, value)


def made_by(term: Any, operation: str) -> bool:
    node = term._node if isinstance(term, Term) else None
    return node is not None and node.meta["operation"] == operation


@spelled("setitem", writes=True)
def setitem(np: Library, x: Any, index: Any, value: Any) -> Any:
    parts = list(index) if isinstance(index, tuple) else [index]
    return NotImplemented if mixed(parts) else Write(np, x, "set", index, value)


@spelled("index_add", writes=True)
def index_add(np: Library, x: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> Any:
    return Write(np, x, "add.at", at(dim, rank(x), index), source if alpha == 1 else alpha * source)


@spelled("index_copy", "index_fill", writes=True)
def index_copy(np: Library, x: Any, dim: int, index: Any, source: Any) -> Any:
    return Write(np, x, "set", at(dim, rank(x), index), source) if rank(x) else NotImplemented


def cut(source: Any, index: Any) -> Any:
    """The part of `source` that an index of a smaller shape takes."""
    ours, theirs = known(source), known(index)
    if not isinstance(ours, torch.Tensor) or ours.shape == theirs.shape:
        return source
    return source[tuple(slice(None, index.shape[i]) for i in range(rank(index)))]


@spelled("scatter_add", writes=True)
def scatter_add(np: Library, x: Any, dim: int, index: Any, source: Any) -> Any:
    return Write(np, x, "add.at", helper(np, helpers.along)(index, dim), cut(source, index))


@spelled("scatter", writes=True)
def scatter(np: Library, x: Any, dim: int, index: Any, source: Any) -> Any:
    return Write(np, x, "set", helper(np, helpers.along)(index, dim), cut(source, index))


@spelled("select_scatter", writes=True)
def select_scatter(np: Library, x: Any, source: Any, dim: int, index: Any) -> Any:
    return Write(np, x, "set", at(dim, rank(x), index), source)


@spelled("slice_scatter", writes=True)
def slice_scatter(
    np: Library, x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Any:
    last = end if isinstance(end, Term) or end is None or end < 2**62 else None
    first = start if isinstance(start, Term) or start != 0 else None
    part = slice(first, last, None if not isinstance(step, Term) and step in (None, 1) else step)
    return Write(np, x, "set", at(dim, rank(x), part), source)


@spelled("diagonal_scatter", writes=True)
def diagonal_scatter(np: Library, x: Any, source: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    ndim = rank(x)
    first, second = dim1 % ndim, dim2 % ndim
    if second != first + 1 or (first and second != ndim - 1) or (not first and ndim > 2):
        return NotImplemented
    places = helper(np, helpers.diagonal)(source.shape[-1], *([offset] if offset else []))
    return Write(np, x, "set", places if ndim == 2 else (..., unpacked(places)), source)


def unpacked(several: Term) -> Term:
    return Term(several._by, f"*{several}")


@spelled("masked_scatter", writes=True)
def masked_scatter(np: Library, x: Any, mask: Any, source: Any) -> Any:
    return Write(np, x, "place", mask, source) if rank(x) == rank(mask) else NotImplemented
