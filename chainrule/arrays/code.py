"""Which code uses NumPy: what a person's functions name, and what the functions that they call name."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

from chainrule.arrays.values import mapped
from chainrule.errors import ChainruleError, Site
from chainrule.recording.names import is_person, is_person_file, tells_its_class

ABSENT = object()


def is_numpy_code(function: Any, args: Any) -> bool:
    """Whether `function(*args)` computes with NumPy: its arguments say so, or else the modules that it uses.

    >>> import numpy as np
    >>> is_numpy_code(lambda x: x * 2, (np.ones(3),)), is_numpy_code(lambda x: torch.exp(x), ())
    (True, False)
    """
    return kinds_of(function, args) == {"numpy"}


def kinds_of(function: Any, args: Any) -> set[str]:
    """With which of NumPy and torch `function(*args)` computes: neither, where it computes with plain numbers."""
    kinds: set[str] = set()

    def look(v: Any) -> Any:
        kinds.add("torch" if isinstance(v, torch.Tensor) else "numpy")
        return v

    owner = getattr(function, "__self__", None if isinstance(function, types.FunctionType) else function)
    mapped((args, owner), look, {})
    return kinds or _modules_used(function)


def _modules_used(function: Any) -> set[str]:
    """Which of NumPy and torch a function names, and the functions of the person's that it calls."""
    kinds: set[str] = set()
    for item in reached(function):
        module = getattr(item, "__module__", None) or type(item).__module__
        name = item.__name__ if isinstance(item, types.ModuleType) else module
        kinds |= {name.partition(".")[0]} & {"numpy", "torch"}
    return kinds


def reached(*functions: Any) -> Iterator[Any]:
    """What the functions name, and what the person's functions among that name."""
    stack, met = list(functions), set()
    while stack:
        item = stack.pop()
        if id(item) not in met:
            met.add(id(item))
            yield item
            if isinstance(item, types.FunctionType):
                stack.extend(named(item).values() if is_person(item.__code__) else ())
            elif not isinstance(item, types.ModuleType):
                stack.extend(code_of(item))


def named(function: types.FunctionType) -> dict[str, Any]:
    """The globals and closed-over variables that a function names."""
    found = {n: function.__globals__[n] for c in _codes(function) for n in c.co_names if n in function.__globals__}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found |= {n: cell.cell_contents for n, cell in cells if content(cell) is not ABSENT}
    return {n: value for n, value in found.items() if tells_its_class(value)}


def _codes(function: types.FunctionType) -> Iterator[types.CodeType]:
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        yield code


def refuse_imports(functions: tuple[Any, ...]) -> None:
    """What a function imports itself cannot be replaced."""
    for item in reached(*functions):
        if not isinstance(item, types.FunctionType) or not is_person(item.__code__):
            continue
        for code in _codes(item):
            line = code.co_firstlineno
            for step in dis.get_instructions(code) if any(n.startswith("numpy") for n in code.co_names) else ():
                line = step.starts_line or line
                if step.opname == "IMPORT_NAME" and str(step.argval).partition(".")[0] == "numpy":
                    site = Site(code.co_filename, line, code.co_name)
                    raise ChainruleError(f"{code.co_name} imports numpy itself; import it at the top of the file", site)


def content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def code_of(item: Any) -> list[Any]:
    """The functions that an object of the person's is made of."""
    if isinstance(item, types.MethodType):
        return [item.__func__, item.__self__]
    if isinstance(item, functools.partial):
        return [item.func]
    if isinstance(item, staticmethod | classmethod):
        return [item.__func__]
    if isinstance(item, property):
        return [f for f in (item.fget, item.fset) if f is not None]
    kind = item if isinstance(item, type) else type(item)
    module = sys.modules.get(kind.__module__)
    if not is_person_file(getattr(module, "__file__", None) or "<") and kind.__module__ != "__main__":
        return []
    return [
        value
        for base in kind.__mro__
        if base is not object
        for value in vars(base).values()
        if callable(value) or isinstance(value, staticmethod | classmethod | property)
    ]
