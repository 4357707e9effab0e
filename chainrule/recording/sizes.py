"""`len`, `range` and `math` that know sizes, lent to the person's modules while they are recorded.

`len()` can only return a plain int, `range()` cannot be overridden, and `math.log` reads an int without
asking it; without these, `x / len(x)` would bake a batch size into the derived code, and a loop over
`range(x.shape[1])` would silently fix its length.
"""

from __future__ import annotations

import builtins
import functools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from chainrule.recording.names import is_person, is_person_file
from chainrule.recording.numbers import Tracked


def _len(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim:
        return value.shape[0]
    return builtins.len(value)


LENT_LEN = _len.__code__


FOLLOWED: dict[type, dict[str, Callable[..., Any]]] = {}  # for what stands for a number: its functions, by math's names


def _pinning(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` on plain numbers: the derived code asserts the tracked ones that it was given."""

    @functools.wraps(function, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        for known in (FOLLOWED[type(a)] for a in args if type(a) in FOLLOWED):
            if function.__name__ in known:
                return known[function.__name__](*args, **kwargs)
        for number in args:
            if isinstance(number, Tracked):
                number.home.pinned(number)
        return function(*(a.plain() if isinstance(a, Tracked) else a for a in args), **kwargs)

    return call


class _Math:
    """The math module: its functions pin the tracked numbers that they are given, and follow what stands for a number."""

    def __getattr__(self, name: str) -> Any:
        held = getattr(math, name)
        return _pinning(held) if callable(held) and name not in _OF_NUMBERS else held


_OF_NUMBERS = ("prod",)  # made of multiplications, which are recorded
_range = _pinning(builtins.range)
_math = _Math()


@contextmanager
def lent(*callables: Any) -> Iterator[None]:
    """Lend them to the modules of `callables` and to every other module of the person's; taken back at the end."""
    changed: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for space in _namespaces(callables):
            for name, lend in _loans(space).items():
                changed.append((space, name, space.get(name, changed)))
                space[name] = lend
        yield
    finally:
        for space, name, before in reversed(changed):
            if before is changed:
                space.pop(name, None)
            else:
                space[name] = before


def _loans(space: dict[str, Any]) -> dict[str, Any]:
    loans: dict[str, Any] = {k: v for k, v in (("len", _len), ("range", _range)) if k not in space}
    for name, value in space.items():
        if value is math:
            loans[name] = _math
        elif type(value) is _BUILTIN and value.__module__ == "math" and value.__name__ not in _OF_NUMBERS:
            loans[name] = _pinning(value)
    return loans


_BUILTIN = type(math.sqrt)


def _namespaces(callables: tuple[Any, ...]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for item in callables:
        if isinstance(item, dict):
            found[id(item)] = item
            continue
        while isinstance(item, functools.partial):
            item = item.func
        parts: list[Any] = list(item.modules()) if isinstance(item, torch.nn.Module) else [item]
        for part in parts:
            methods = [getattr(type(part), name, None) for name in ("forward", "__call__")]
            for method in (part, *methods):
                function: Any = getattr(method, "__func__", method)
                code = getattr(function, "__code__", None)
                if code is not None and is_person(code):
                    found[id(function.__globals__)] = function.__globals__
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
        if file is not None and is_person_file(file):
            found[id(module.__dict__)] = module.__dict__
    return list(found.values())
