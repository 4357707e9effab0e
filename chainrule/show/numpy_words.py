"""What the spellings of operations in NumPy and JAX are made of."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

from torch import fx

from chainrule.show.python import Python
from chainrule.show.terms import Term

Spelling = Callable[..., Any]
OPERATIONS: dict[str, Spelling] = {}
WRITES: set[str] = set()  # operations that write into a copy


def spelled(*names: str, writes: bool = False) -> Callable[[Spelling], Spelling]:
    """Add the words for operations."""

    def add(spelling: Spelling) -> Spelling:
        OPERATIONS.update(dict.fromkeys(names, spelling))
        WRITES.update(names if writes else ())
        return spelling

    return add


class Library(Term):
    """The library as the emitted code calls it: `np` or `jnp`."""

    __slots__ = ("_made",)

    def __init__(self, by: Any, made: fx.Node) -> None:
        super().__init__(by, by.module)
        self._made = made  # the node that is spelled


def result(np: Library) -> Any:
    """What the operation gave when it was recorded."""
    return np._made.meta["val"]


def helper(np: Library, function: Callable[..., Any]) -> Any:
    """A function of `numpy_helpers` that the emitted code brings with it."""
    by: Any = np._by
    _bring(by, function)
    return Term(by, function.__name__)


def _bring(by: Any, function: Callable[..., Any]) -> None:
    """The function, after those that it calls."""
    name = function.__name__
    if name in by.reserved:
        return
    by.reserved.add(name)
    for called in sorted(_words_of(function.__code__)):
        other = function.__globals__.get(called)
        if inspect.isfunction(other) and other.__module__ == function.__module__:
            _bring(by, other)
    by.helpers[name] = function


def _words_of(code: types.CodeType) -> set[str]:
    inside = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_words_of, inside))


class Write:
    """A copy of `base` into which a value is written: `out[index] = value`, `np.add.at(out, index, value)`."""

    def __init__(self, np: Library, base: Term, how: str, index: Any, value: Any) -> None:
        self.np, self.base, self.how, self.index, self.value = np, base, how, index, value

    def start(self, fresh: bool) -> Term:
        return self.base if fresh else self.base.copy()

    def statements(self, out: Term) -> list[str]:
        by: Python = self.np._by
        place, value = out[self.index], by.text(self.value)
        if self.how == "set":
            return [f"{place} = {value}"]
        if self.how == "add":
            return [f"{place} += {value}"]
        if self.how == "add.at":
            index = self.index if not isinstance(self.index, tuple) or _plain(self.index) else self.np.s_[self.index]
            return [str(self.np.add.at(out, index, self.value))]
        return [str(getattr(self.np, self.how)(out, self.index, self.value))]


def _plain(index: tuple[Any, ...]) -> bool:
    """Whether an index may stand as a tuple of its own."""
    return all(not isinstance(i, slice) and i is not Ellipsis for i in index)


def axes(dim: Any, of: Any = None) -> Any:
    """An axis, or several as a tuple; None for all of them.

    >>> axes([0, 1]), axes(-1), axes([])
    ((0, 1), -1, None)
    """
    if isinstance(dim, tuple | list):
        dim = tuple(dim) or None
        dim = dim[0] if dim is not None and len(dim) == 1 else dim
    return dim
