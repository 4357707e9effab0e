"""Autocast, written out: what torch converts out of sight becomes a conversion of the recorded program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from chainrule.recording.dispatch import plain

_DEVICES = ("cpu", "cuda")
_CONVERSIONS = frozenset(("to", "type", "type_as", "float", "double", "half", "bfloat16"))


def autocast_is_on() -> bool:
    return any(torch.is_autocast_enabled(device) for device in _DEVICES)


def converted(function: Callable[..., Any], operation: str, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """The arguments as autocast converts them for this call; None where it leaves them as they are.

    Torch does not tell which operations it converts, so the call is run once to see what it gives.
    """
    dtypes = {t.dtype for t in _floating((args, kwargs))}
    if operation in _CONVERSIONS or "dtype" in kwargs or not dtypes:
        return None
    state = torch.get_rng_state()
    with torch.no_grad(), torch._C.DisableTorchFunction():
        given = next(_floating(function(*plain(args), **plain(kwargs))), None)
        if given is None or dtypes == {given.dtype} or _same_without(function, args, kwargs, given):
            torch.set_rng_state(state)
            return None
    torch.set_rng_state(state)
    return _to(args, given.dtype), _to(kwargs, given.dtype)


def _same_without(function: Callable[..., Any], args: Any, kwargs: Any, given: torch.Tensor) -> bool:
    """Whether the call gives the same where autocast is off."""
    try:
        plainly = next(_floating(without_autocast(lambda: function(*plain(args), **plain(kwargs)))), None)
    except RuntimeError:  # mixed dtypes
        return False
    return plainly is not None and plainly.dtype == given.dtype


def without_autocast(call: Callable[[], Any]) -> Any:
    """`call()`, with autocast switched off where it is on."""
    for device in _DEVICES:
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return without_autocast(call)
    return call()


def _floating(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for v in value:
            yield from _floating(v)
    elif isinstance(value, torch.Tensor) and value.dtype.is_floating_point and value.dtype != torch.float64:
        yield value


def _to(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, dict):
        return {k: _to(v, dtype) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_to(v, dtype) for v in value)
    floating = isinstance(value, torch.Tensor) and value.dtype.is_floating_point and value.dtype != torch.float64
    return value.to(dtype) if floating and value.dtype != dtype else value
