"""Where a person keeps the tensors that a step moves, so that one that was replaced is noticed."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chainrule.compiling.graph.lowering import Lowered
from chainrule.errors import ChainruleError

DEEP = 4  # containers inside of one another that are looked into, beside modules


@dataclass(frozen=True)
class Place:
    """A tensor, or a part of a module, in a dictionary, a list or a closure, under a key."""

    container: Any
    key: Any
    held: torch.Tensor | nn.Module

    def holds(self) -> bool:
        """Whether it is still there."""
        try:
            return self.container[self.key] is self.held
        except (KeyError, IndexError):
            return False


class _Cell:
    """A variable of a closure, read as a container of one."""

    def __init__(self, cell: types.CellType) -> None:
        self.cell = cell

    def __getitem__(self, name: str) -> Any:
        return self.cell.cell_contents


def surroundings(forward: Callable[..., Any], given: Any = ()) -> tuple[list[Place], list[nn.Module]]:
    """Where `forward` finds its tensors: its module, closure, globals, the object that it is a method of, or among the
    arguments `given`; and the modules that were met on the way."""
    modules: list[nn.Module] = []
    found: dict[int, Place] = {}
    seen: set[int] = set()

    def look(container: Any, key: Any, value: Any, depth: int) -> None:
        if isinstance(value, torch.Tensor):
            found.setdefault(id(value), Place(container, key, value))
        elif depth and id(value) not in seen and not isinstance(value, type | types.ModuleType):
            seen.add(id(value))
            if isinstance(value, nn.Module):
                modules.append(value)
                if container is not None:
                    found[id(value)] = Place(container, key, value)
            for inner, name, held in _inside(value):
                look(inner, name, held, depth if isinstance(value, nn.Module) else depth - 1)

    function = getattr(forward, "__func__", forward)
    for argument in given:
        if not isinstance(argument, torch.Tensor):
            look(None, None, argument, DEEP)
    if not isinstance(function, types.FunctionType):
        look(None, None, forward, DEEP)
        return list(found.values()), modules
    if hasattr(forward, "__self__"):
        look(None, None, forward.__self__, DEEP)
    for inner, name, held in _inside(function):
        look(inner, name, held, DEEP)
    for name in function.__code__.co_names:
        if name in function.__globals__:
            look(function.__globals__, name, function.__globals__[name], DEEP)
    return list(found.values()), modules


def apart(lowered: Lowered) -> None:
    """Refuse parameters that lie in the memory of another tensor: a step moves each by itself."""
    held = [(n, t) for n, t in lowered.held.items() if t.numel()]
    for p, parameter in lowered.params.items():
        for other, tensor in held:
            if other is not p and _overlap(parameter, tensor):
                raise ChainruleError(
                    f"the parameter {lowered.names[p]} {tuple(parameter.shape)} shares memory with "
                    f"{lowered.names.get(other, other.name)} {tuple(tensor.shape)}; let forward take one of them as a view "
                    "of the other, or give one memory of its own"
                )


def _overlap(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have an element in common."""
    if a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr() or a.dtype != b.dtype:
        return False
    count = a.untyped_storage().nbytes() // a.element_size()
    touched = torch.zeros(count, dtype=torch.bool)
    touched.as_strided(a.shape, a.stride(), a.storage_offset()).fill_(True)
    return bool(touched.as_strided(b.shape, b.stride(), b.storage_offset()).any())


def _inside(value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(container, key, what it holds) for what a value holds."""
    if isinstance(value, nn.Module):
        for table in (value._parameters, value._buffers, value._modules):
            yield from ((table, key, held) for key, held in list(table.items()))
        own = vars(value)
        yield from ((own, key, held) for key, held in list(own.items()) if not key.startswith("_"))
    elif isinstance(value, dict):
        yield from ((value, key, held) for key, held in list(value.items()))
    elif isinstance(value, list | tuple):
        yield from ((value, i, held) for i, held in enumerate(value))
    elif isinstance(value, types.FunctionType):
        for name, closed in zip(value.__code__.co_freevars, value.__closure__ or ()):
            cell = _Cell(closed)
            yield cell, name, cell[name]
    elif hasattr(value, "__dict__"):
        yield from ((vars(value), key, held) for key, held in list(vars(value).items()))
