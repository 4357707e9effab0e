"""How one thing that code can change is put back as it was: each function looks at it now, and gives what undoes."""

from __future__ import annotations

import contextlib
import operator
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch

Undo = Callable[[], None]

_ABSENT: Any = object()


def of_tensor(tensor: torch.Tensor) -> Undo:
    with torch._C.DisableTorchFunction(), torch.no_grad():
        numbers = tensor.detach().clone()
        needs, grad, g = tensor.requires_grad, tensor.grad if tensor.is_leaf else None, tensor.__dict__.get("g")
        kept = {id(held): held.detach().clone() for held in (grad, g) if isinstance(held, torch.Tensor)}

    def undo() -> None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            _put(tensor, numbers)
            for held in (grad, g):
                if isinstance(held, torch.Tensor):
                    _put(held, kept[id(held)])
            if tensor.is_leaf:
                if tensor.requires_grad != needs:
                    tensor.requires_grad_(needs)
                tensor.grad = grad
            if g is None:
                tensor.__dict__.pop("g", None)
            else:
                tensor.__dict__["g"] = g

    return undo


def _put(tensor: torch.Tensor, numbers: torch.Tensor) -> None:
    if tensor.shape == numbers.shape and not torch.equal(tensor.detach(), numbers):
        tensor.data.copy_(numbers)  # whose version autograd does not count


def of_dictionary(space: dict[Any, Any]) -> Undo:
    kept = dict(space)

    def undo() -> None:
        if not _same(space, kept) or not _same(space.values(), kept.values()):
            space.clear()
            space.update(kept)

    return undo


def of_sequence(value: Any) -> Undo:
    kept = value[:]
    return lambda: None if _same(value, kept) else value.__setitem__(slice(None), kept)


def of_collection(value: Any, fill: Callable[[list[Any]], None]) -> Undo:
    """Of a set, or a deque."""
    kept = list(value)

    def undo() -> None:
        if not _same(value, kept):
            value.clear()
            fill(kept)

    return undo


def of_array(value: Any) -> Undo:
    kept = value.copy()

    def undo() -> None:
        if value.flags.writeable and value.shape == kept.shape:
            value[...] = kept

    return undo


def of_bindings(space: dict[str, Any], names: Iterable[str]) -> Undo:
    kept = {name: space.get(name, _ABSENT) for name in names}

    def undo() -> None:
        for name, value in kept.items():
            if value is _ABSENT:
                space.pop(name, None)
            elif space.get(name, _ABSENT) is not value:
                space[name] = value

    return undo


def of_class(cls: type) -> Undo:
    kept = dict(vars(cls))

    def undo() -> None:
        now = dict(vars(cls))
        for name in now.keys() | kept.keys():
            if now.get(name, _ABSENT) is not kept.get(name, _ABSENT):
                with contextlib.suppress(AttributeError, TypeError):  # what Python itself puts there
                    setattr(cls, name, kept[name]) if name in kept else delattr(cls, name)

    return undo


def of_cell(cell: types.CellType) -> Undo:
    return of_slot(_CONTENTS, cell, value_in(_CONTENTS, cell))


def slots_of(cls: type) -> Iterator[types.MemberDescriptorType]:
    for base in cls.__mro__:
        if "__slots__" in vars(base):
            yield from (v for v in vars(base).values() if isinstance(v, types.MemberDescriptorType))


def value_in(slot: Any, owner: Any) -> Any:
    try:
        return slot.__get__(owner)
    except (AttributeError, ValueError):  # not filled yet
        return _ABSENT


_CONTENTS = vars(types.CellType)["cell_contents"]


def of_slot(slot: Any, owner: Any, held: Any) -> Undo:
    def undo() -> None:
        if value_in(slot, owner) is not held:
            slot.__delete__(owner) if held is _ABSENT else slot.__set__(owner, held)

    return undo


def _same(now: Collection[Any], then: Collection[Any]) -> bool:
    return len(now) == len(then) and all(map(operator.is_, now, then))
