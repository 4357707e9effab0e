"""In-place writes as the values that they leave: `x[i] = v` becomes a new value, recorded in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from chainrule.errors import ChainruleError
from chainrule.recording.indices import is_full, parted, put, put_back, taken, without_new_axes


def set_item(x: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """What `x` is after `x[index] = value`, made from functions that change nothing.

    >>> set_item(torch.zeros(2, 3), (slice(None), 1), torch.tensor([5., 6.]))
    tensor([[0., 5., 0.],
            [0., 6., 0.]])
    """
    first, places = parted(index, x)
    given = value
    if isinstance(value, torch.Tensor) and value.dtype != x.dtype:
        value = value.to(x.dtype)
    mask = places[0] if len(places) == 1 and all(is_full(i) for i in first) else None
    if mask is not None and mask.dtype == torch.bool and (not isinstance(value, torch.Tensor) or not value.ndim):
        return x.masked_fill(mask[(..., *(None,) * (x.ndim - mask.ndim))] if mask.ndim < x.ndim else mask, value)
    inner = taken(x, first)
    if places:
        value = value if isinstance(value, torch.Tensor) else x.new_tensor(value)
        value = put(inner, places, _without_leading_ones(value, inner, places))
    elif isinstance(value, torch.Tensor):
        value = _without_leading_ones(value, inner, places)
        value = value.expand(inner.shape) if value.shape != inner.shape else value
    else:
        value = torch.full_like(inner, value)
    value, first = without_new_axes(value, first)
    while not all(is_full(i) for i in first):
        value, first = put_back(value, x, first, lambda inner: inner)
    return value.clone() if value is given else value


def _without_leading_ones(value: torch.Tensor, inner: torch.Tensor, places: list[torch.Tensor | None]) -> torch.Tensor:
    """torch takes a value with more axes than the place has, where they are of size one."""
    with torch._C.DisableTorchFunction():
        room = (torch.ops.aten.index(inner, places) if places else inner).ndim
    return value.reshape(value.shape[value.ndim - room :]) if value.ndim > room else value


def fill_diagonal(x: torch.Tensor, fill_value: Any, wrap: bool = False) -> torch.Tensor:
    """What `x` is after `x.fill_diagonal_(fill_value)`."""
    if x.ndim != 2 or (wrap and x.shape[0] > x.shape[1]):
        raise ChainruleError("fill_diagonal_ is followed for matrices without wrap; write the result as a new value")
    return torch.diagonal_scatter(x, torch.full_like(x.diagonal(), fill_value))


REPLACED: dict[str, Callable[..., torch.Tensor]] = {
    "setitem": set_item,
    "copy": lambda x, source, non_blocking=False: source.to(x.dtype).expand(x.shape).clone(),
    "zero": torch.zeros_like,
    "fill_diagonal": fill_diagonal,
    "fill": lambda x, value: (
        value.to(x.dtype).expand(x.shape) if isinstance(value, torch.Tensor) else torch.full_like(x, value)
    ),
}
OF_THE_SHAPE = frozenset(("unsqueeze", "squeeze", "t", "transpose", "swapaxes", "swapdims"))  # change no element
