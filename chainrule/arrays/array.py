"""An array that acts as NumPy's does and computes with torch, so that a recorder sees each operation.

What the array can do is in FUNCTIONS, by NumPy's names; the modules arithmetic and shapes fill it.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from chainrule.arrays.dtypes import NUMPY_DTYPES, counted, torch_dtype
from chainrule.errors import ChainruleError
from chainrule.recording import names
from chainrule.recording.names import site_of
from chainrule.recording.numbers import Tracked

FUNCTIONS: dict[str, Callable[..., Any]] = {}
_met: dict[int, tuple[np.ndarray[Any, Any], torch.Tensor]] = {}  # NumPy arrays met while recording, by id


class Array:
    """A NumPy array whose elements are those of `.tensor`.

    >>> x = Array(torch.tensor([[1., 2.], [3., 4.]]))
    >>> x.sum(axis=0), x.T.dot(x).shape
    (array([4., 6.], dtype=float32), torch.Size([2, 2]))
    """

    __slots__ = ("__weakref__", "tensor", "view_of")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tensor: torch.Tensor, view_of: tuple[Array, Any] | None = None) -> None:
        self.tensor = tensor
        self.view_of = view_of  # the array and the index that it was taken with

    # -- what it is --------------------------------------------------------------------------------

    @property
    def shape(self) -> Any:
        """The sizes; under a recorder, numbers that remember where they came from."""
        return self.tensor.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self.tensor, self.view_of = self.tensor.view(shape), None

    @property
    def size(self) -> Any:
        return self.tensor.numel()

    @property
    def ndim(self) -> int:
        return self.tensor.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        return NUMPY_DTYPES[self.tensor.dtype]

    @property
    def T(self) -> Array:
        return self.transpose()

    def transpose(self, *axes: Any) -> Array:
        """The axes in another order, reversed without arguments."""
        axes = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        return FUNCTIONS["transpose"](self, axes if axes and axes != (None,) else None)

    def reshape(self, *shape: Any, order: str = "C") -> Array:
        """The same elements in another shape."""
        return FUNCTIONS["reshape"](self, shape[0] if len(shape) == 1 else shape, order=order)

    def astype(self, dtype: Any, copy: bool = True, **_: Any) -> Array:
        """A copy in another dtype."""
        wanted = torch_dtype(dtype)
        same = wanted == self.tensor.dtype
        return self.copy() if same and copy else self if same else Array(self.tensor.to(wanted))

    def copy(self, order: str = "C") -> Array:
        return Array(self.tensor.clone())

    def flatten(self, order: str = "C") -> Array:
        """A copy of one axis."""
        flat = FUNCTIONS["reshape"](self, -1, order=order)
        return flat.copy() if flat.tensor.data_ptr() == self.tensor.data_ptr() else flat

    def fill(self, value: Any) -> None:
        self.tensor.fill_(operand(value))

    def item(self, *index: Any) -> Any:
        """One element as a number, which under a recorder remembers where it came from."""
        return (self[index if len(index) > 1 else index[0]].tensor if index else self.tensor).item()

    def tolist(self) -> Any:
        return self.tensor.tolist()

    def __len__(self) -> int:
        if not self.tensor.ndim:
            raise TypeError("len() of unsized object")
        return len(self.tensor)

    def __iter__(self) -> Iterator[Array]:
        return (Array(row if row.ndim else row.clone()) for row in self.tensor)

    def __bool__(self) -> bool:
        if self.tensor.numel() > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()"
            )
        return bool(self.tensor)

    def __float__(self) -> float:
        return float(self.tensor.item())

    def __int__(self) -> int:
        return int(self.tensor.item())

    def __index__(self) -> int:
        if self.tensor.ndim or self.tensor.is_floating_point():
            raise TypeError("only integer scalar arrays can be converted to a scalar index")
        return int(self.tensor.item())

    def __repr__(self) -> str:
        return repr(plain_values(self))

    def __str__(self) -> str:
        return str(plain_values(self))

    def __format__(self, spec: str) -> str:
        return format(plain_values(self)[()], spec)

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy()

    # -- elements ----------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Array:
        from chainrule.arrays.index import forwards, torch_index

        tensor, forward = forwards(self.tensor, index)
        taken = tensor[torch_index(forward)]
        if not taken.ndim:  # a number, which a later write to the array leaves as it is
            return Array(taken.clone())
        with torch._C.DisableTorchFunction():
            return Array(taken, (self, index) if taken._is_view() else None)

    def __setitem__(self, index: Any, value: Any) -> None:
        from chainrule.arrays.calls import tensor
        from chainrule.arrays.index import torch_index

        of, at = value.view_of if isinstance(value, Array) and value.view_of else (None, None)
        if of is self and at is index:  # `x[i] += y` has written to the view already
            return
        value = operand(value)
        if isinstance(value, list | tuple):
            value = tensor(value)
        if isinstance(value, torch.Tensor) and value.dtype != self.tensor.dtype:
            value = value.to(self.tensor.dtype)
        self.tensor[torch_index(index)] = value

    # -- the rest of NumPy -------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"'numpy.ndarray' object has no attribute {name!r}")
        if name not in FUNCTIONS or name == "sort":  # which sorts in place
            raise unfollowed(f"the array attribute .{name}", self)
        return types.MethodType(FUNCTIONS[name], self)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise unfollowed("a conversion into an array of NumPy's own (from another module, or a local import)", self)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out", ())
        function = FUNCTIONS.get(ufunc.__name__)
        function = function if method == "__call__" else getattr(function, method, None)
        if function is None or any(isinstance(o, np.ndarray) for o in out):
            raise unfollowed(f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}"), self)
        return function(*args, **kwargs)

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise unfollowed(f"np.{function.__name__}", self)
        return FUNCTIONS[function.__name__](*args, **kwargs)


def _operator(name: str) -> Callable[..., Any]:
    def method(self: Array, *others: Any) -> Any:
        if any(_is_foreign(o) for o in others):
            return NotImplemented
        return FUNCTIONS[name](self, *others)

    return method


def _reflected(name: str) -> Callable[..., Any]:
    return lambda self, other: NotImplemented if _is_foreign(other) else FUNCTIONS[name](other, self)


def _in_place(short: str, name: str) -> Callable[..., Any]:
    def method(self: Array, other: Any) -> Any:
        write = getattr(torch.Tensor, f"__i{short}__", None)
        if not self.tensor.ndim or isinstance(other, list | tuple) or write is None:
            new = FUNCTIONS[name](self, other)
            if not self.tensor.ndim:  # a number, of which other variables keep the old value
                return new
            self.tensor.copy_(new.tensor)
        else:
            given = operand(other)
            write(self.tensor, counted(given, self.tensor) if short == "sub" else given)
        return self

    return method


def _is_foreign(value: Any) -> bool:
    return value is None or isinstance(value, str | dict)


_BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "pow": "power", "matmul": "matmul",
    "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
_COMPARED = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}
for _short, _name in {**_BINARY, **_COMPARED, **_UNARY}.items():
    setattr(Array, f"__{_short}__", _operator(_name))
for _short, _name in _BINARY.items():
    setattr(Array, f"__r{_short}__", _reflected(_name))
    setattr(Array, f"__i{_short}__", _in_place(_short, _name))
setattr(Array, "__divmod__", _operator("divmod"))  # noqa: B010
setattr(Array, "__rdivmod__", _reflected("divmod"))  # noqa: B010


def operand(value: Any) -> Any:
    """`value` as torch takes it: the tensor of an array, a plain number; lists and tuples entry by entry."""
    if isinstance(value, Array):
        return value.tensor
    if isinstance(value, np.ndarray):
        return tensor_of(value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)([operand(v) for v in value])
    return value


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A copy of a NumPy array, the same one for the same array while recording."""
    if id(array) not in _met:
        _met[id(array)] = (array, torch.tensor(array))
    return _met[id(array)][1]


def forget() -> None:
    _met.clear()


def wrapped(value: Any) -> Any:
    """Tensors as arrays, those of a tuple or list too."""
    if isinstance(value, torch.Tensor):
        return Array(value)
    if type(value) in (tuple, list):
        return type(value)([wrapped(v) for v in value])
    return value


def plain_values(value: Any) -> Any:
    """`value` with copies of NumPy's own for arrays, and plain numbers for tracked ones: for looking, not computing."""
    if isinstance(value, Array):
        with torch._C.DisableTorchFunction():  # no operation of anybody's program
            return value.tensor.detach().numpy().copy()
    if isinstance(value, Tracked):
        return value.plain()
    if isinstance(value, tuple | list):
        return type(value)([plain_values(v) for v in value])
    return copy.copy(value) if isinstance(value, dict) else value


class Unfollowed(ChainruleError):
    """NumPy code that has no torch operation here."""


def unfollowed(what: str, array: Any = None) -> Unfollowed:
    """The refusal of what has no torch operation here, with the person's line."""
    shape = f", on an array of shape {plain_values(array).shape}," if isinstance(array, Array) else ""
    text = f"{what}{shape} cannot be followed; write it with basic operations on arrays"
    return Unfollowed(text, site_of(sys._getframe()))


def _tensor_behind(array: Any) -> torch.Tensor:
    return array.tensor


names.HELD[Array] = _tensor_behind  # a recorder finds the person's names for arrays too
