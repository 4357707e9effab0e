"""How a function on torch tensors becomes one of NumPy's: its arguments, its dtypes, the ways to apply it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from chainrule.arrays.array import FUNCTIONS, Array, operand, unfollowed, wrapped
from chainrule.arrays.dtypes import counted, torch_dtype
from chainrule.arrays.places import Places

Function = Callable[..., Any]


def followed(*names: str) -> Callable[[Function], Function]:
    """Makes a function on tensors the one that arrays have under these names."""

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        places = Places(names[0], function)

        @functools.wraps(function)
        def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
            args, further = places.split(args)
            out, kwargs = further.pop("out", out), {**further, **kwargs}
            for name in kwargs:
                if name not in parameters and not open_ended:
                    raise unfollowed(f"np.{names[0]} with {name}=", args[0] if args else None)
            args, kwargs = operand(args), {k: operand(v) for k, v in kwargs.items()}
            return _put(function(*args, **kwargs), out)

        for name in names:
            FUNCTIONS[name] = call
        return function

    return decorate


def _put(result: Any, out: Any) -> Any:
    """The result as arrays, or written into those that were given for it: one, or one for each part."""
    if out is None:
        return wrapped(result)
    if isinstance(result, tuple) and isinstance(out, tuple):
        return tuple(map(_put, result, out))
    out = out[0] if isinstance(out, tuple) else out
    if out is None:
        return wrapped(result)
    operand(out).copy_(result)
    return out


def tensor(value: Any, dtype: Any = None) -> torch.Tensor:
    """`value` as a tensor: numbers as NumPy takes them (float64, int64), lists of arrays stacked."""
    wanted = None if dtype is None else torch_dtype(dtype)
    if isinstance(value, torch.Tensor):
        return value if wanted is None or wanted == value.dtype else value.to(wanted)
    if isinstance(value, list | tuple) and _holds_tensor(value):
        return tensor(torch.stack(same_dtype(*(tensor(v) for v in value))), dtype)
    if wanted is None:
        wanted = torch.float64 if _holds_float(value) or value in ([], ()) else None
    return torch.tensor(value, dtype=wanted) if wanted is not None else torch.tensor(value)


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, list | tuple) and any(map(_holds_tensor, value)))


def _holds_float(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, list | tuple) and any(map(_holds_float, value)))


def same_dtype(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The tensors in the dtype that holds them all."""
    wanted = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
    return [t if t.dtype == wanted else t.to(wanted) for t in tensors]


def floating(value: Any) -> torch.Tensor:
    """A tensor; whole numbers in float64, where torch would take float32."""
    t = tensor(value)
    return t if t.is_floating_point() or t.is_complex() else t.to(torch.float64)


def pair(a: Any, b: Any, division: bool = False) -> tuple[Any, Any]:
    """Two operands that give what they give in NumPy; one of them may stay a number."""
    a, b = (tensor(v) if isinstance(v, list | tuple) else v for v in (a, b))
    if not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor):
        a = tensor(a)
    whole = [not isinstance(v, float) and not (isinstance(v, torch.Tensor) and v.is_floating_point()) for v in (a, b)]
    if division and all(whole):
        return (floating(a), b) if isinstance(a, torch.Tensor) else (a, floating(b))
    if isinstance(a, torch.Tensor) and isinstance(b, float) and whole[0]:
        return floating(a), b
    if isinstance(b, torch.Tensor) and isinstance(a, float) and whole[1]:
        return a, floating(b)
    return a, b


class Ufunc:
    """A function of elements, with the ways in which NumPy applies it."""

    def __init__(self, name: str, function: Function) -> None:
        self.__name__ = name
        self.call = FUNCTIONS[name]
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        raise unfollowed(f"np.{self.__name__}.{name}")

    def at(self, array: Array, index: Any, *value: Any) -> None:
        """Add to (or take from) elements, each as often as the index names it."""
        if self.__name__ not in ("add", "subtract") or not isinstance(array, Array):
            raise unfollowed(f"np.{self.__name__}.at", array)
        added = counted(tensor(operand(value[0])), array.tensor)
        add_at(array, index, -added if self.__name__ == "subtract" else added)

    def reduce(self, array: Any, axis: Any = 0, **kwargs: Any) -> Any:
        """The function between all elements along an axis."""
        name = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}.get(self.__name__)
        name = {"logical_and": "all", "logical_or": "any"}.get(self.__name__, name)
        if name is None:
            raise unfollowed(f"np.{self.__name__}.reduce", array)
        return FUNCTIONS[name](array, axis=axis, **kwargs)

    def accumulate(self, array: Any, axis: int = 0) -> Any:
        """The function between all elements up to each along an axis."""
        name = {"add": "cumsum", "multiply": "cumprod"}.get(self.__name__)
        if name is None:
            raise unfollowed(f"np.{self.__name__}.accumulate", array)
        return FUNCTIONS[name](array, axis=axis)

    def outer(self, a: Any, b: Any) -> Any:
        """The function of every element of `a` with every element of `b`."""
        x, y = tensor(operand(a)), tensor(operand(b))
        return wrapped(self.function(x[(..., *(None,) * y.ndim)], y))


def add_at(array: Array, index: Any, value: torch.Tensor) -> None:
    """Add `value` at `array[index]`, more than once where the index repeats."""
    from chainrule.arrays.index import torch_index

    found = torch_index(index)
    entries = found if isinstance(found, tuple) else (found,)
    places = [torch.tensor(i) if isinstance(i, list | int) else i for i in entries]
    listed = [k for k, i in enumerate(places) if isinstance(i, torch.Tensor)]
    whole = all(isinstance(i, torch.Tensor) or i == slice(None) for i in places)
    masks = len(places) > 1 and any(places[k].dtype == torch.bool for k in listed)
    if not listed:
        array[index] = FUNCTIONS["add"](array[index], Array(value))
        return
    if not whole or masks or listed[-1] - listed[0] >= len(listed):
        raise unfollowed("ufunc.at with slices, new axes or masks between its index arrays", array)
    target, first = array.tensor, listed[0]
    if first:  # the axes that are indexed come first
        rest = [k for k in range(target.ndim) if k not in listed]
        axes = np.broadcast_shapes(*(tuple(map(int, places[k].shape)) for k in listed))
        shape = (*(target.shape[k] for k in range(first)), *axes, *(target.shape[k] for k in rest[first:]))
        value = value.expand(shape) if value.shape != shape else value
        value = value.movedim(tuple(range(first, first + len(axes))), tuple(range(len(axes)))) if axes else value
        target = target.permute(*listed, *rest)
    target.index_put_(tuple(places[k] for k in listed), value.to(target.dtype), accumulate=True)


def ufunc(*names: str) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        followed(*names)(function)
        for name in names:
            FUNCTIONS[name] = Ufunc(name, function)
        return function

    return decorate
