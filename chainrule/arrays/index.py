"""What stands in the brackets of a NumPy array, as torch takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from chainrule.arrays.array import Array, operand, unfollowed


def torch_index(index: Any) -> Any:
    """`index` for a tensor: arrays as tensors of int64 or bool, and single places as NumPy reads them.

    Where an index list is apart from a single place, as in `x[0, :, [1, 2]]`, NumPy reads the place as a list
    of one as well, which puts the axis of the list first; torch does not.

    >>> torch.zeros(3, 4, 5)[torch_index((0, slice(None), [1, 2]))].shape
    torch.Size([2, 4])
    """
    if not isinstance(index, tuple):
        return _entry(index)
    entries = [_entry(i) for i in index]
    lists = [k for k, i in enumerate(entries) if _is_list(i)]
    picked = [k for k, i in enumerate(entries) if _is_list(i) or _is_place(i)]
    if lists and picked[-1] - picked[0] >= len(picked):  # something stands between them
        entries = [_as_list(i) if _is_place(i) else i for i in entries]
    return tuple(entries)


def _entry(i: Any) -> Any:
    i = operand(i)
    if isinstance(i, slice):
        if i.step is not None and i.step < 0:
            raise unfollowed("a write to, or an index array beside, a slice with a negative step")
        return slice(*(_place(n) for n in (i.start, i.stop, i.step)))
    if isinstance(i, list) and any(isinstance(n, torch.Tensor) for n in i):
        i = torch.stack([torch.as_tensor(n) for n in i])
    if isinstance(i, list) and i and isinstance(i[0], list):
        return torch.tensor(i)
    if isinstance(i, torch.Tensor) and i.dtype not in (torch.bool, torch.int64):
        return i.to(torch.int64)
    return i


def _place(bound: Any) -> Any:
    return bound.__index__() if isinstance(bound, Array) else bound


def _is_list(i: Any) -> bool:
    return isinstance(i, list | range) or (isinstance(i, torch.Tensor) and i.ndim > 0)


def _is_place(i: Any) -> bool:
    whole = isinstance(i, int | np.integer) and not isinstance(i, bool)
    return whole or (isinstance(i, torch.Tensor) and i.ndim == 0 and i.dtype != torch.bool)


def _as_list(i: Any) -> Any:
    return i.reshape(1) if isinstance(i, torch.Tensor) else [i]


def forwards(tensor: torch.Tensor, index: Any) -> tuple[torch.Tensor, Any]:
    """`tensor` with the axes turned round that `index` reads backwards, and an index that reads them forwards."""
    entries = index if isinstance(index, tuple) else (index,)
    if not any(_is_backwards(i) for i in entries):
        return tensor, index
    if not all(i is None or i is Ellipsis or isinstance(i, int | slice) for i in entries):
        return tensor, index
    used = sum(i is not None and i is not Ellipsis for i in entries)
    found: list[Any] = []
    axis = 0
    for i in entries:
        if _is_backwards(i):
            places = range(*i.indices(int(tensor.shape[axis])))
            tensor = tensor.flip(axis) if len(places) == tensor.shape[axis] else _picked(tensor, axis, places)
            i = slice(None)
        found.append(i)
        axis += tensor.ndim - used if i is Ellipsis else i is not None
    return tensor, tuple(found)


def _picked(tensor: torch.Tensor, axis: int, places: range) -> torch.Tensor:
    return tensor.index_select(axis, torch.tensor(list(places), dtype=torch.int64))


def _is_backwards(i: Any) -> bool:
    return isinstance(i, slice) and i.step is not None and i.step < 0
