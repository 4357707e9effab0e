"""In-place writes as the values that they leave: `x[i] = v` becomes a new value, recorded in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from chainrule.errors import ChainruleError

FULL = slice(None)


def set_item(x: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """What `x` is after `x[index] = value`, made from functions that change nothing.

    >>> set_item(torch.zeros(2, 3), (slice(None), 1), torch.tensor([5., 6.]))
    tensor([[0., 5., 0.],
            [0., 6., 0.]])
    """
    index = index if isinstance(index, tuple) else (index,)
    place = x[index]
    if not isinstance(value, torch.Tensor):
        value = torch.full_like(place, value)
    elif value.ndim == 0 and len(index) == 1 and _is_mask(index[0]):
        return torch.where(index[0], value, x)
    value = value.expand(place.shape) if value.shape != place.shape else value
    value = value.to(x.dtype) if value.dtype != x.dtype else value
    if any(isinstance(i, torch.Tensor | list | range) for i in index):
        return _by_tensors(x, index, value)
    if None in index:
        raise ChainruleError("x[..., None] = value cannot be followed; write to x without the None")
    used = sum(i is not Ellipsis for i in index)
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    return _scatter(x, [*index[:at], *[FULL] * (x.ndim - used), *index[at + 1 :]], value)


def _scatter(x: torch.Tensor, index: list[Any], value: torch.Tensor) -> torch.Tensor:
    """Integers and slices, one for each axis."""
    partial = [axis for axis, i in enumerate(index) if i != FULL]
    if not partial:
        return value
    last = partial[-1]
    rest = [FULL if axis == last else i for axis, i in enumerate(index)]
    inner = x[tuple(rest)] if len(partial) > 1 else x
    axis = last - sum(isinstance(i, int) for i in index[:last])
    i = index[last]
    if isinstance(i, int):
        written = torch.select_scatter(inner, value, axis, i)
    else:
        written = torch.slice_scatter(inner, value, axis, i.start, i.stop, 1 if i.step is None else i.step)
    return _scatter(x, rest, written)


def _by_tensors(x: torch.Tensor, index: tuple[Any, ...], value: torch.Tensor) -> torch.Tensor:
    places: list[Any] = []
    for i in index:
        if isinstance(i, list | range):
            places.append(torch.tensor(list(i)))
        elif isinstance(i, torch.Tensor) or i == FULL:
            places.append(i if isinstance(i, torch.Tensor) else None)
        else:
            raise ChainruleError(
                "an assignment whose index mixes tensors with integers, None or part slices cannot be followed; "
                "assign in two steps, or use torch.where"
            )
    if None in [p if p is None else 0 for p in places]:
        return torch.ops.aten.index_put(x, places, value)
    return torch.index_put(x, tuple(places), value)


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


REPLACED: dict[str, Callable[..., torch.Tensor]] = {
    "setitem": set_item,
    "copy": lambda x, source, non_blocking=False: source.to(x.dtype).expand(x.shape),
    "zero": torch.zeros_like,
    "fill": lambda x, value: (
        value.to(x.dtype).expand(x.shape) if isinstance(value, torch.Tensor) else torch.full_like(x, value)
    ),
}
OF_THE_SHAPE = frozenset(("unsqueeze", "squeeze", "t", "transpose", "swapaxes", "swapdims"))  # change no element
