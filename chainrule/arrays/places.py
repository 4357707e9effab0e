"""Arguments of NumPy's functions that are given by their place, `np.tanh(x, out)`, under the names that they have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.arrays.array import unfollowed

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Places:
    """Which arguments of a function of NumPy's one on torch takes by place as well, and what the others are called.

    >>> Places("tanh", lambda x: x).split(("x", "y"))
    (('x',), {'out': ('y',)})
    >>> Places("sum", lambda a, axis=None, dtype=None: a).split(("x", 0, None, "y", True))
    (('x', 0, None), {'out': 'y', 'keepdims': True})
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, own = name, _of_numpy(name)
        self.inputs = own.nin if isinstance(own, np.ufunc) else None
        parameters = inspect.signature(function).parameters.values()
        self.open = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.count = sum(p.kind in _BY_PLACE for p in parameters)
        self.theirs = _by_place(own) if self.inputs is None else []
        known = [p.name for p in self.theirs]
        if "out" in known:
            self.count = min(self.count, known.index("out"))

    def split(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What is given on by place, and the rest by name, but what NumPy takes for it anyway."""
        if self.inputs is not None:
            rest = args[self.inputs :]
            return args[: self.inputs], {"out": rest} if rest else {}
        if self.open or len(args) <= self.count:
            return args, {}
        rest, theirs = args[self.count :], self.theirs[self.count :]
        if len(rest) > len(theirs):
            raise unfollowed(f"np.{self.name} with {len(args)} arguments by place", args[0])
        return args[: self.count], {p.name: v for p, v in zip(theirs, rest, strict=False) if v is not p.default}


def _of_numpy(name: str) -> Any:
    found: Any = np
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _by_place(function: Any) -> list[inspect.Parameter]:
    """The parameters that may be given by place; none where NumPy does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p for p in parameters if p.kind in _BY_PLACE]
