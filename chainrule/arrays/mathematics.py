"""Python's own `math` of arrays of one element: torch operations, so that no path ends in a plain number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from chainrule.arrays.array import Array, wrapped
from chainrule.arrays.calls import floating, same_dtype
from chainrule.recording.sizes import FOLLOWED

Function = Callable[..., Any]


def _number(value: Any) -> Any:
    """The one element of an array, as a tensor without axes."""
    if not isinstance(value, Array):
        return value
    if value.tensor.numel() != 1:
        raise TypeError("only length-1 arrays can be converted to Python scalars")
    t = floating(value.tensor)
    return t.reshape(()) if t.ndim else t


def _followed(function: Function) -> Function:
    return lambda *args: wrapped(function(*map(_number, args)))


def _tensors(values: tuple[Any, ...]) -> list[torch.Tensor]:
    return same_dtype(*(floating(v) for v in values))


def _log(x: Any, base: Any = None) -> Any:
    natural = [v.log() if isinstance(v, torch.Tensor) else math.log(v) for v in (x, base) if v is not None]
    return natural[0] / natural[1] if len(natural) == 2 else natural[0]


_NAMES = """acos acosh asin asinh atan atanh cos cosh erf erfc exp exp2 expm1 lgamma log10 log1p log2 sin sinh sqrt
    tan tanh""".split()  # noqa: SIM905
_FUNCTIONS: dict[str, Function] = {
    **{name: lambda x, name=name: getattr(x, name)() for name in _NAMES},
    **{name: lambda *each, name=name: getattr(torch, name)(*_tensors(each)) for name in ("atan2", "copysign", "hypot")},
    "fabs": abs,
    "log": _log,
    "pow": lambda x, y: x**y,
}
FOLLOWED[Array] = {name: _followed(function) for name, function in _FUNCTIONS.items()}
