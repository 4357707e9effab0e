"""The objects of a person's that may keep parameters and their gradients: layers, and what holds layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

DEEPEST = 50  # a linked list is no library of layers


def objects_in(space: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """The objects in a function's variables, each once, with the way to it."""
    found: dict[int, tuple[Any, str]] = {}
    for name, value in space.items():
        for held, path in objects(value, name):
            found.setdefault(id(held), (held, path))
    return list(found.values())


def objects(owner: Any, path: str) -> list[tuple[Any, str]]:
    """An object of the person's, and those that it holds, in lists and dictionaries too, with the way to them."""
    found: list[tuple[Any, str]] = []
    seen: set[int] = set()
    stack = [(owner, path, 0)] if _may_hold(owner) else []
    while stack:
        value, where, depth = stack.pop()
        if id(value) in seen or depth > DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, list | tuple):
            held = [(v, f"{where}[{i}]") for i, v in enumerate(value) if _may_hold(v)]
        elif isinstance(value, dict):
            held = [(v, f'{where}["{k}"]' if isinstance(k, str) else f"{where}[{k!r}]") for k, v in value.items()]
        else:
            found.append((value, where))
            held = [(v, f"{where}.{k}") for k, v in vars(value).items() if k != "_modules" or not _is_module(value)]
            held += _children(value, where)
        stack += [(v, way, depth + 1) for v, way in reversed(held) if _may_hold(v)]
    return found


def _is_module(value: Any) -> bool:
    return isinstance(value, torch.nn.Module)


def _children(owner: Any, path: str) -> list[tuple[Any, str]]:
    """The modules that a module holds, with the way to them as a person writes it."""
    if not _is_module(owner):
        return []
    if isinstance(owner, torch.nn.Sequential | torch.nn.ModuleList):
        return [(child, f"{path}[{name}]") for name, child in owner._modules.items()]
    if isinstance(owner, torch.nn.ModuleDict):
        return [(child, f'{path}["{name}"]') for name, child in owner._modules.items()]
    return [(child, f"{path}.{name}") for name, child in owner._modules.items()]


def _may_hold(value: Any) -> bool:
    """Whether it is one of the person's objects, or may have some in it: a container of torch's, too."""
    if isinstance(value, list | tuple | dict) or _is_module(value):
        return True
    if not hasattr(value, "__dict__") or isinstance(value, torch.Tensor | type):
        return False
    if callable(getattr(value, "__code__", None)):
        return False
    return type(value).__module__.split(".")[0] not in ("torch", "numpy", "chainrule", "builtins")
