"""The objects of a person's that may keep parameters and their gradients: layers, and what holds layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def objects_in(space: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """The objects in a function's variables, each once, with the way to it."""
    found: dict[int, tuple[Any, str]] = {}
    for name, value in space.items():
        for held, path in objects(value, name):
            found.setdefault(id(held), (held, path))
    return list(found.values())


def objects(owner: Any, path: str, depth: int = 4) -> list[tuple[Any, str]]:
    """An object of the person's, and those that it holds, in lists and dictionaries too, with the way to them."""
    if isinstance(owner, list | tuple):
        return (
            [pair for i, held in enumerate(owner) for pair in objects(held, f"{path}[{i}]", depth - 1)] if depth else []
        )
    if isinstance(owner, dict):
        return [p for k, held in owner.items() for p in objects(held, f"{path}[{k!r}]", depth - 1)] if depth else []
    if (
        not depth
        or not hasattr(owner, "__dict__")
        or isinstance(owner, torch.Tensor | type)
        or callable(getattr(owner, "__code__", None))
    ):
        return []
    if type(owner).__module__.split(".")[0] in ("torch", "numpy", "chainrule", "builtins"):
        return []
    return [(owner, path)] + [
        pair for k, held in vars(owner).items() for pair in objects(held, f"{path}.{k}", depth - 1)
    ]
