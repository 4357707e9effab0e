"""Numbers that remember where they came from.

`x.shape[0]` must stay `x.shape[0]` in the derived code, or the code would hold for one batch size
only. So sizes (and what `.item()` gives) are ints and floats that carry the graph node they stand
for, and arithmetic on them is recorded. What leaves the tracking (a comparison, `math.sqrt`, `len`)
becomes an assertion of the derived code instead of a silent literal.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from chainrule.recording.shapes import Numbers


class Tracked:
    """What a tracked int and a tracked float share: where they are recorded and how to make the node."""

    home: Numbers
    make: Callable[[], fx.Node]
    origin: tuple[fx.Node, int] | None  # (shape node, axis) where the number is one entry of a shape
    _made: fx.Node | None

    def node(self) -> fx.Node:
        """The graph node of this number, written into the graph when it is first used."""
        if self._made is None:
            self._made = self.make()
        return self._made

    def plain(self) -> int | float:
        return int.__int__(self) if isinstance(self, int) else float.__float__(self)  # type: ignore[arg-type]


_NEUTRAL = {"add": 0, "mul": 1}


def _arithmetic(name: str, reflected: bool) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def method(self: Any, other: Any) -> Any:
        if name == "mul" and isinstance(other, list | tuple | str):
            self.home.pinned(self)  # [w] * n
        if not isinstance(other, int | float) or isinstance(other, bool):
            return NotImplemented
        if isinstance(other, int) and not isinstance(other, Tracked) and other == _NEUTRAL.get(name):
            return self
        left, right = (other, self) if reflected else (self, other)
        value = function(_plain(left), _plain(right))
        return track(self.home, value, lambda: self.home.number(function, (left, right), value))

    return method


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(operator, name)

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        value = function(_plain(self), _plain(other))
        self.home.compared(function, self, other, value)
        return value

    return method


def _plain(value: Any) -> Any:
    return value.plain() if isinstance(value, Tracked) else value


def _negated(self: Any) -> Any:
    value = -_plain(self)
    return track(self.home, value, lambda: self.home.number(operator.neg, (self,), value))


def _truth(self: Any) -> bool:
    value = bool(_plain(self))
    self.home.compared(operator.ne, self, 0, value)
    return value


def _escaping(to: type) -> Callable[[Any], Any]:
    def method(self: Any) -> Any:
        self.home.pinned(self)
        return to(_plain(self))

    return method


def _leaving(name: str) -> Callable[..., Any]:
    """A method of numbers that is not followed: its result is a plain number, and the code holds for it alone."""

    def method(self: Any, *others: Any) -> Any:
        number = _plain(self)
        plain = getattr(type(number), name, None)
        if plain is None:
            return NotImplemented
        result = plain(number, *(_plain(o) for o in others))
        if result is not NotImplemented:
            self.home.pinned(self)
        return result

    return method


_UNFOLLOWED = """round floor ceil trunc abs pos invert divmod rdivmod and rand or ror xor rxor lshift rlshift rshift
    rrshift""".split()  # noqa: SIM905
_METHODS: dict[str, Any] = {
    **{f"__{n}__": _leaving(f"__{n}__") for n in _UNFOLLOWED},
    **{f"__{n}__": _arithmetic(n, False) for n in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")},
    **{f"__r{n}__": _arithmetic(n, True) for n in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")},
    **{f"__{n}__": _comparison(n) for n in ("eq", "ne", "lt", "le", "gt", "ge")},
    "__neg__": _negated,
    "__bool__": _truth,
    "__int__": _escaping(int),
    "__float__": _escaping(float),
}

TrackedInt = type("TrackedInt", (Tracked, int), {**_METHODS, "__hash__": int.__hash__})
TrackedFloat = type("TrackedFloat", (Tracked, float), {**_METHODS, "__hash__": float.__hash__})


def track(
    home: Numbers,
    value: Any,
    make: Callable[[], fx.Node],
    origin: tuple[fx.Node, int] | None = None,
) -> Any:
    """`value` as a number that carries the node that `make` writes when it is needed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number: Any = (TrackedInt if isinstance(value, int) else TrackedFloat)(value)
    number.home, number.make, number.origin, number._made = home, make, origin, None
    return number


def _of_slot(name: str) -> Callable[[Any, Any], Any]:
    """Arithmetic of a slot: a plain number would win over a size that it meets, and hide where that came from."""

    def method(self: Any, other: Any) -> Any:
        if isinstance(other, Tracked):
            return NotImplemented
        value = getattr(type(self).__base__, name)(self, other)
        return slot(value) if type(value) in (int, float) else value

    return method


_SLOT_METHODS = [f"__{r}{n}__" for r in ("", "r") for n in ("add", "sub", "mul", "truediv", "floordiv", "mod")]


class IntSlot(int):
    """A whole number passed to a rule: it takes a `.g` as a tensor does, and the `.g` is dropped."""


class FloatSlot(float):
    """A real number passed to a rule; see IntSlot."""


for _name in _SLOT_METHODS:
    setattr(IntSlot, _name, _of_slot(_name))
    setattr(FloatSlot, _name, _of_slot(_name))


class ComplexSlot(complex):
    """A complex number passed to a rule; see IntSlot."""


def slot(value: complex) -> complex:
    """`value` as an object that a rule may leave a `.g` on.

    >>> two = slot(2.0); two.g = None; two * 3
    6.0
    """
    if isinstance(value, complex):
        return ComplexSlot(value)
    return IntSlot(value) if isinstance(value, int) else FloatSlot(value)


def literal(value: Any) -> Any:
    """The plain number in a slot; anything else as it is."""
    if isinstance(value, IntSlot):
        return int(value)
    if isinstance(value, ComplexSlot):
        return complex(value)
    return float(value) if isinstance(value, FloatSlot) else value


class TrackedSize(tuple):  # type: ignore[type-arg]  # torch.Size cannot be a base class
    """The shape of a tensor under recording: its entries are tracked, and so is their product."""

    __class__ = property(lambda self: torch.Size)  # for isinstance

    def numel(self) -> int:
        """The number of elements, as a tracked number."""
        return math.prod(self)

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        if isinstance(index, slice):
            return TrackedSize(found)
        if isinstance(found, Tracked):
            found.home.taken(found, sys._getframe(1))
        return found

    def __iter__(self) -> Iterator[Any]:
        reader = sys._getframe(1)
        for index, number in enumerate(tuple.__iter__(self)):
            if isinstance(number, Tracked):
                number.home.taken(number, reader, index)
        return tuple.__iter__(self)

    def __add__(self, other: Any) -> TrackedSize:
        return TrackedSize(tuple.__add__(self, tuple(other)))

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"
