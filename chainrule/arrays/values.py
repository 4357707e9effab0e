"""Between tensors and the arrays that compute with them, in whatever holds them."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from chainrule.arrays.array import Array
from chainrule.recording.names import is_person_file

_LEAVES = (Array, torch.Tensor, np.ndarray)


def as_arrays(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """`value` with an array on torch for each tensor and each NumPy array, in tuples, lists, dicts and objects.

    A tensor keeps its memory, a NumPy array is copied; a list, dict or object that holds one is copied. What
    is the same object in several places stays so.

    >>> cache = as_arrays((torch.ones(2), {"w": np.ones(3)}))
    >>> cache[0].shape, cache[1]["w"].shape
    (torch.Size([2]), torch.Size([3]))
    """

    def convert(v: Any) -> Any:
        if isinstance(v, torch.Tensor):
            return Array(v)
        return Array(copied(v)) if isinstance(v, np.ndarray) and v.dtype.kind in "fiub" else v

    return mapped(value, convert, {} if memo is None else memo)


def as_tensors(value: Any) -> Any:
    """`value` with the tensor of each array on torch, and a copy as a tensor of each NumPy array.

    >>> as_tensors([Array(torch.ones(2)), np.ones(1)])
    [tensor([1., 1.]), tensor([1.], dtype=torch.float64)]
    """

    def convert(v: Any) -> Any:
        if isinstance(v, Array):
            return v.tensor
        return copied(v) if isinstance(v, np.ndarray) and v.dtype.kind in "fiub" else v

    return mapped(value, convert, {}, (Array, np.ndarray))


def copied(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A copy as a tensor, which a recorder meets as an input: no operation of the program made it."""
    with torch._C.DisableTorchFunction():
        return torch.tensor(array)


def mapped(value: Any, convert: Callable[[Any], Any], memo: dict[int, Any], leaves: tuple[type, ...] = _LEAVES) -> Any:
    """`value` with its leaves converted; containers without any are kept."""
    if id(value) in memo:
        return memo[id(value)][0]
    if not _has_leaf(value, leaves, set()):
        return value
    if isinstance(value, leaves):
        made = convert(value)
    elif isinstance(value, tuple):
        parts = [mapped(v, convert, memo, leaves) for v in value]
        made = type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    elif isinstance(value, list | dict):
        made = copy.copy(value)
        memo[id(value)] = (made, value)
        for key, v in list(enumerate(value) if isinstance(value, list) else value.items()):
            made[key] = mapped(v, convert, memo, leaves)
    else:
        made = copy.copy(value)
        memo[id(value)] = (made, value)
        for name, v in list(vars(value).items()):
            vars(made)[name] = mapped(v, convert, memo, leaves)
    memo[id(value)] = (made, value)  # which keeps the id in use
    return made


def _has_leaf(value: Any, leaves: tuple[type, ...], seen: set[int]) -> bool:
    if isinstance(value, leaves):
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, dict):
        return any(_has_leaf(v, leaves, seen) for v in value.values())
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return any(_has_leaf(v, leaves, seen) for v in value)
    return is_record(value) and any(_has_leaf(v, leaves, seen) for v in vars(value).values())


def is_record(value: Any) -> bool:
    """Whether `value` is an object of the person's that holds its arrays as attributes."""
    if isinstance(value, type | types.ModuleType | types.FunctionType | types.MethodType | torch.nn.Module):
        return False
    module = sys.modules.get(type(value).__module__)
    file = getattr(module, "__file__", None)
    own = type(value).__module__ == "__main__" or type(value) is types.SimpleNamespace
    return isinstance(getattr(value, "__dict__", None), dict) and (own or (file is not None and is_person_file(file)))
