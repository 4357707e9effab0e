"""Expressions as values: what Python does with a term is written down, so that code can be spelled by running it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.show.python import ATOM, Python

_Method = Callable[[Any, Any], Any]


def _operators(target: Callable[[Any, Any], Any]) -> tuple[_Method, _Method]:
    """The methods that write down `term <op> other` and `other <op> term`."""

    def written(left: Any, right: Any, term: Term) -> Term:
        return Term(term._by, *term._by.infix(target, left, right), None, reads_of((left, right)))

    return (lambda self, other: written(self, other, self)), (lambda self, other: written(other, self, self))


class Term:
    """An expression of the emitted code. Operators, calls, attributes and indices give larger ones.

    >>> from chainrule.show.numpy import NumPy
    >>> x, np = Term(NumPy(lambda node: None), "x"), Term(NumPy(lambda node: None), "np")
    >>> np.exp(-(x - 1)).sum(axis=0) / x.shape[0]
    np.exp(-(x - 1)).sum(axis=0) / x.shape[0]
    """

    __slots__ = ("_binding", "_by", "_node", "_reads", "_text", "_value")

    def __init__(
        self,
        by: Python,
        text: str,
        binding: int = ATOM,
        node: fx.Node | None = None,
        reads: tuple[fx.Node, ...] = (),
    ) -> None:
        self._by, self._text, self._binding = by, text, binding
        self._node = node
        self._value = None if node is None else node.meta["val"]  # what the recording had here
        self._reads = reads  # the nodes that are written inside, as often as they are

    def __repr__(self) -> str:
        return self._text

    def _grown(self, text: str, *parts: Any) -> Any:
        return Term(self._by, text, ATOM, None, self._reads + reads_of(parts))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._grown(f"{self._by.text(self, ATOM)}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._grown(f"{self._text}({self._by._arguments(args, kwargs)})", args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        return self._grown(f"{self._by.text(self, ATOM)}[{self._by._index(index)}]", index)

    def __neg__(self) -> Any:
        return Term(self._by, *self._by.prefixed(operator.neg, self), None, self._reads)

    def __invert__(self) -> Any:
        return Term(self._by, *self._by.prefixed(operator.invert, self), None, self._reads)

    def __bool__(self) -> bool:
        raise TypeError(f"{self} is written, not computed: whether it is true is not known")

    def __hash__(self) -> int:
        return id(self)

    __add__, __radd__ = _operators(operator.add)
    __sub__, __rsub__ = _operators(operator.sub)
    __mul__, __rmul__ = _operators(operator.mul)
    __truediv__, __rtruediv__ = _operators(operator.truediv)
    __floordiv__, __rfloordiv__ = _operators(operator.floordiv)
    __mod__, __rmod__ = _operators(operator.mod)
    __pow__, __rpow__ = _operators(operator.pow)
    __matmul__, __rmatmul__ = _operators(operator.matmul)
    __and__, __rand__ = _operators(operator.and_)
    __or__, __ror__ = _operators(operator.or_)
    __xor__, __rxor__ = _operators(operator.xor)
    __gt__ = _operators(operator.gt)[0]
    __ge__ = _operators(operator.ge)[0]
    __lt__ = _operators(operator.lt)[0]
    __le__ = _operators(operator.le)[0]
    __eq__ = _operators(operator.eq)[0]
    __ne__ = _operators(operator.ne)[0]


def reads_of(value: Any) -> tuple[fx.Node, ...]:
    """The nodes that are written inside a value of terms."""
    if isinstance(value, Term):
        return value._reads
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    return tuple(n for v in value for n in reads_of(v)) if isinstance(value, tuple | list) else ()


def known(term: Any) -> Any:
    """What the recording had where this term stands; a constant is itself.

    >>> known(3.0)
    3.0
    """
    return term._value if isinstance(term, Term) else term


def rank(term: Any) -> int:
    value = known(term)
    return value.ndim if isinstance(value, torch.Tensor) else 0
