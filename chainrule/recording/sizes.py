"""`len` and `range` that know sizes, lent to the person's functions while they are recorded.

`len()` can only return a plain int, and `range()` cannot be overridden; without these, `x / len(x)` would
bake a batch size into the derived code, and a loop over `range(x.shape[1])` would silently fix its length.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from chainrule.recording.names import is_person
from chainrule.recording.numbers import Tracked
from chainrule.recording.recorder import Recorder


@contextmanager
def lent(recorder: Recorder, *callables: Any) -> Iterator[None]:
    """Lend `len` and `range` to the modules in which `callables` were written; taken back at the end."""

    def len(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim:
            return value.shape[0]
        return builtins.len(value)

    def range(*bounds: Any) -> builtins.range:
        for bound in bounds:
            if isinstance(bound, Tracked):
                recorder.numbers.pinned(bound)
        plain: list[Any] = [b.plain() if isinstance(b, Tracked) else b for b in bounds]
        return builtins.range(*plain)

    changed: list[tuple[dict[str, Any], str]] = []
    try:
        for space in _namespaces(callables):
            for name, lend in (("len", len), ("range", range)):
                if name not in space:
                    space[name] = lend
                    changed.append((space, name))
        yield
    finally:
        for space, name in changed:
            space.pop(name, None)


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
    return list(found.values())
