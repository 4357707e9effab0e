"""Where a person keeps the tensors that a step moves, so that one that was replaced is noticed."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

DEEP = 4  # containers inside of one another that are looked into, beside modules


@dataclass(frozen=True)
class Place:
    """A tensor in a dictionary, a list or a closure, under a key."""

    container: Any
    key: Any
    tensor: torch.Tensor

    def holds(self) -> bool:
        """Whether the tensor is still there."""
        try:
            return self.container[self.key] is self.tensor
        except (KeyError, IndexError):
            return False


class _Cell:
    """A variable of a closure, read as a container of one."""

    def __init__(self, cell: types.CellType) -> None:
        self.cell = cell

    def __getitem__(self, key: None) -> Any:
        return self.cell.cell_contents


def places(forward: Callable[..., Any], tensors: Sequence[torch.Tensor]) -> tuple[list[Place], list[nn.Module]]:
    """Where `forward` finds each of `tensors`: its module, closure, globals, or the object that it is a method of; and
    the modules that it finds first, whose `train()` and `eval()` change what it does."""
    wanted = {id(t): t for t in tensors}
    found: dict[int, Place] = {}
    seen: set[int] = set()
    modules: list[nn.Module] = []

    def look(container: Any, key: Any, value: Any, depth: int) -> None:
        if isinstance(value, torch.Tensor):
            if id(value) in wanted:
                found.setdefault(id(value), Place(container, key, value))
        elif isinstance(value, nn.Module) and depth == DEEP and id(value) not in seen:
            modules.append(value)
            enter(value, 0)
        elif depth and id(value) not in seen and not isinstance(value, type | types.ModuleType):
            enter(value, depth - 1)

    def enter(value: Any, depth: int) -> None:
        seen.add(id(value))
        for inner, name, held in _inside(value):
            inside_module = isinstance(value, nn.Module) and isinstance(held, nn.Module)
            if inside_module and id(held) not in seen:
                enter(held, 0)
            else:
                look(inner, name, held, depth)

    function = getattr(forward, "__func__", forward)
    if not isinstance(function, types.FunctionType):
        look(None, None, forward, DEEP)
        return list(found.values()), modules
    if hasattr(forward, "__self__"):
        look(None, None, forward.__self__, DEEP)
    for cell in function.__closure__ or ():
        wrapped = _Cell(cell)
        look(wrapped, None, wrapped[None], DEEP)
    for name in function.__code__.co_names:
        if name in function.__globals__:
            look(function.__globals__, name, function.__globals__[name], DEEP)
    return list(found.values()), modules


def _inside(value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(container, key, what it holds) for what a value holds."""
    if isinstance(value, nn.Module):
        for table in (value._parameters, value._buffers, value._modules):
            yield from ((table, key, held) for key, held in list(table.items()))
    elif isinstance(value, dict):
        yield from ((value, key, held) for key, held in list(value.items()))
    elif isinstance(value, list | tuple):
        yield from ((value, i, held) for i, held in enumerate(value))
    elif isinstance(value, types.FunctionType):
        yield from ((cell := _Cell(c), None, cell[None]) for c in value.__closure__ or ())
    elif hasattr(value, "__dict__"):
        yield from ((vars(value), key, held) for key, held in list(vars(value).items()))
