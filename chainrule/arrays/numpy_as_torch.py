"""Runs NumPy code so that a recorder sees torch operations: arrays that compute with torch, in place of NumPy's.

The functions that array code calls are found in its modules (`np.exp`, `exp`); while `numpy_as_torch` is open
they are torch operations on arrays of chainrule.arrays.array.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from chainrule.arrays import arithmetic, mathematics, shapes  # noqa: F401  (they fill FUNCTIONS and FOLLOWED)
from chainrule.arrays.array import FUNCTIONS, Array, forget, plain_values, unfollowed
from chainrule.arrays.code import ABSENT, code_of, content, is_numpy_code, refuse_imports
from chainrule.arrays.conversions import CONVERSIONS, conversion
from chainrule.arrays.values import as_arrays, as_tensors, copied, is_record
from chainrule.recording.names import is_person, is_person_file, tells_its_class
from chainrule.recording.numbers import Tracked
from chainrule.recording.unseen import drawn

_JUDGES = ("numpy.testing",)  # look at values, compute none


__all__ = ["as_arrays", "as_tensors", "is_numpy_code", "numpy_as_torch"]


@contextmanager
def numpy_as_torch(*functions: Any) -> Iterator[None]:
    """While open, the modules of `functions`, and the person's modules that these use, find NumPy on torch.

    What stands for NumPy there (`np`, `numpy`, and names such as `exp` imported from it) is replaced, and their
    global NumPy arrays by arrays on torch with the same values; all is put back at the end. Give the functions
    `as_arrays(arguments)`. Random numbers are NumPy's own, drawn from its generator.

    Raises ChainruleError, with the person's line, where an array meets a function of NumPy's that has no torch
    operation here, and where a function imports numpy itself.

    >>> def loss(x): return np.sum(np.exp(x))
    >>> with numpy_as_torch(loss): out = loss(as_arrays(np.zeros(3)))
    >>> as_tensors(out), loss(np.zeros(3))
    (tensor(3., dtype=torch.float64), np.float64(3.0))
    """
    changed: list[tuple[Callable[[Any], None], Any]] = []
    memo: dict[int, Any] = {}
    refuse_imports(functions)
    try:
        for put, before in _places(functions):
            after = _replacement(before, memo)
            if after is not before:
                put(after)
                changed.append((put, before))
        yield
    finally:
        for put, before in reversed(changed):
            put(before)
        forget()


def _places(functions: tuple[Any, ...]) -> list[tuple[Callable[[Any], None], Any]]:
    """Every global and closed-over variable of the functions and of what they use: how to set it, and its value."""
    found: list[tuple[Callable[[Any], None], Any]] = []
    met: set[int] = set()
    stack = list(functions)

    def open_space(space: dict[str, Any]) -> None:
        if id(space) not in met:
            met.add(id(space))
            for name, value in list(space.items()):
                if not name.startswith("__") and tells_its_class(value):
                    found.append((functools.partial(space.__setitem__, name), value))
                    stack.append(value)

    while stack:
        item = stack.pop()
        if id(item) in met:
            continue
        met.add(id(item))
        if isinstance(item, types.ModuleType):
            if is_person_file(getattr(item, "__file__", None) or "<"):
                open_space(vars(item))
        elif not isinstance(item, types.FunctionType):
            stack.extend(code_of(item))
        elif is_person(item.__code__) and is_person_file(item.__code__.co_filename):
            open_space(item.__globals__)
            for cell in item.__closure__ or ():
                if (value := content(cell)) is not ABSENT:
                    found.append((functools.partial(setattr, cell, "cell_contents"), value))
                    stack.append(value)
    return found


def _replacement(value: Any, memo: dict[int, Any]) -> Any:
    """What stands for `value`, a person's variable, on torch."""
    if isinstance(value, np.ndarray | dict | list | tuple) or is_record(value):
        return as_arrays(value, memo)
    if isinstance(value, types.ModuleType):
        return _Module(value) if value.__name__.partition(".")[0] == "numpy" else value
    try:
        known = _imported().get(value)
    except TypeError:  # unhashable
        return value
    return value if known is None else getattr(_Module(known[0]), known[1])


@functools.cache
def _imported() -> dict[Any, tuple[types.ModuleType, str]]:
    """The functions that a person may have imported from NumPy, each with its module and name."""
    found: dict[Any, tuple[types.ModuleType, str]] = {}
    for module in (np.linalg, np.random, np):
        for name in dir(module):
            value = getattr(module, name)
            callable_of_numpy = callable(value) and (
                not isinstance(value, type) or value is np.ndarray or value in CONVERSIONS
            )
            own = (getattr(value, "__module__", None) or "numpy").startswith("numpy")
            if callable_of_numpy and own and not name.startswith("_") and type(value).__hash__ is not None:
                found[value] = (module, name)
    return found


class _Module:
    """NumPy, or a module of it, with functions on torch in place of its own where there are any."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        module = self._module
        value = getattr(module, name)
        if value is np.ndarray:
            return Array
        if isinstance(value, types.ModuleType):
            return _Module(value)
        prefix = module.__name__.removeprefix("numpy").removeprefix(".")
        known = FUNCTIONS.get(f"{prefix}.{name}" if prefix else name)
        if isinstance(value, type):
            return conversion(value)
        if not callable(value):
            return value
        return _with_numbers(value, known, f"np.{prefix}.{name}" if prefix else f"np.{name}", prefix)


_CREATING = frozenset(
    "zeros ones empty full eye identity arange array asarray ascontiguousarray zeros_like ones_like empty_like full_like".split()  # noqa: SIM905
)


def _with_numbers(own: Any, known: Any, name: str, prefix: str) -> Any:
    """NumPy's function: on torch for arrays, its own for plain numbers, whose arrays then are constants."""
    if known is not None and own.__name__ in _CREATING:
        return known

    class Function:
        __name__ = own.__name__

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            given = [*args, *kwargs.values()]
            if _holds_array(given):
                if f"numpy.{prefix}" in _JUDGES:
                    return own(*plain_values(args), **{k: plain_values(v) for k, v in kwargs.items()})
                if known is None:
                    raise unfollowed(name, next((v for v in given if isinstance(v, Array)), None))
                return known(*args, **kwargs)
            return _constant(own(*map(_number, args), **{k: _number(v) for k, v in kwargs.items()}))

        def __getattr__(self, attribute: str) -> Any:
            return getattr(own if known is None else known, attribute)

    return Function()


def _holds_array(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_array(v) for v in value)
    return isinstance(value, Array | np.ndarray)


def _number(value: Any) -> Any:
    """A plain number for a tracked one; the recording then holds for its value."""
    if isinstance(value, Tracked):
        value.home.pinned(value)
        return value.plain()
    return value


def _constant(value: Any) -> Any:
    """What NumPy made itself (random numbers, np.linspace) as inputs of the program, which pass no gradient."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return Array(drawn(copied(value), "drawn"))
    return tuple(_constant(v) for v in value) if type(value) is tuple else value
