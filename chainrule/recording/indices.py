"""What stands in the brackets of `x[...]`, in the two steps in which torch takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

FULL = slice(None)
_SEQUENCES = (list, tuple, range)


def parted(index: Any, x: torch.Tensor) -> tuple[list[Any], list[torch.Tensor | None]]:
    """Two indices for one: `x[index]` is `x[first][places]`.

    `first` has numbers, slices and None, an entry for every axis of `x` and for every new one; `places`
    has tensors of indices and masks, and None for each axis that is left whole.

    >>> first, places = parted((0, ..., [1, 2]), torch.zeros(3, 4, 5))
    >>> first == [0, FULL, FULL], places
    (True, [None, tensor([1, 2])])
    """
    entries = list(index) if _several(index) else [index]
    used = sum(_axes(i) for i in entries)
    at = next((k for k, i in enumerate(entries) if i is Ellipsis), len(entries))
    entries[at : at + 1] = [FULL] * (x.ndim - used)
    first: list[Any] = []
    places: list[torch.Tensor | None] = []
    for i in entries:
        if isinstance(i, bool) or (_is_mask(i) and i.ndim == 0):  # a new axis, of size one or empty
            first.append(None)
            places.append(torch.tensor([i]) if isinstance(i, bool) else i.reshape(1))
        elif isinstance(i, _SEQUENCES) or (isinstance(i, torch.Tensor) and i.ndim):
            first.extend([FULL] * _axes(i))
            places.append(i if isinstance(i, torch.Tensor) else _listed(i))
        else:
            first.append(slice(*map(_number, (i.start, i.stop, i.step))) if isinstance(i, slice) else i)
            places.extend([None] * (not is_one(i)))
    while places and places[-1] is None:
        places.pop()
    return first, places


def is_one(i: Any) -> bool:
    """Whether an entry picks one place of an axis, which then is gone."""
    return isinstance(i, int) or (isinstance(i, torch.Tensor) and not i.ndim)


def is_full(i: Any) -> bool:
    """Whether an entry leaves an axis as it is."""
    return isinstance(i, slice) and i.start is None and i.stop is None and i.step in (None, 1)


def taken(x: torch.Tensor, first: list[Any]) -> torch.Tensor:
    """`x[first]`, without the whole axes at the end."""
    needed = [k for k, i in enumerate(first) if not is_full(i)]
    if not needed:
        return x
    kept = tuple(first[: needed[-1] + 1])
    return x[kept if len(kept) > 1 else kept[0]]


def put(
    x: torch.Tensor, places: list[torch.Tensor | None], value: torch.Tensor, accumulate: bool = False
) -> torch.Tensor:
    """`x` with `value` at `x[places]`."""
    if any(i is None for i in places):  # torch.index_put wants an index for every axis before the last
        return torch.ops.aten.index_put(x, places, value, accumulate)
    also = {"accumulate": True} if accumulate else {}
    return torch.index_put(x, tuple(places), value, **also)


def without_new_axes(value: torch.Tensor, first: list[Any]) -> tuple[torch.Tensor, list[Any]]:
    """`value`, of the shape of `x[first]`, without the axes that None made; and `first` without None."""
    left = [i for i in first if not is_one(i)]
    for axis in reversed(range(len(left))):
        if left[axis] is None:
            value = value.squeeze(axis)
    return value, [i for i in first if i is not None]


def put_back(
    value: torch.Tensor, x: torch.Tensor, first: list[Any], base: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, list[Any]]:
    """`value` at its place along the last axis that `first` picks from, among the elements of `base(x)`; and what
    is left of `first`."""
    axis = max(k for k, i in enumerate(first) if not is_full(i))
    i, rest = first[axis], [FULL if k == axis else i for k, i in enumerate(first)]
    around = base(taken(x, rest))
    at = axis - sum(is_one(i) for i in first[:axis])
    if is_one(i):
        return torch.select_scatter(around, value, at, i), rest
    step = () if i.step in (None, 1) else (i.step,)
    return torch.slice_scatter(around, value, at, i.start, i.stop, *step), rest


def _several(index: Any) -> bool:
    """Whether torch reads `index` as a tuple: a tuple, or a short list with more in it than numbers."""
    if isinstance(index, list) and len(index) < 32:
        return any(i is None or i is Ellipsis or isinstance(i, torch.Tensor | slice | list | tuple) for i in index)
    return isinstance(index, tuple)


def _is_mask(i: Any) -> bool:
    return isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)


def _axes(i: Any) -> int:
    """How many axes of `x` an entry uses up."""
    if i is None or i is Ellipsis or isinstance(i, bool):
        return 0
    if isinstance(i, _SEQUENCES):
        return _axes(_listed(i))
    return i.ndim if _is_mask(i) else 1


def _listed(i: Any) -> torch.Tensor:
    return torch.tensor(list(i)) if len(i) else torch.tensor([], dtype=torch.long)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value
