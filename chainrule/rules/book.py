"""The rule book: which backward step belongs to which operation.

A rule is a plain function in the notation of paper and notebooks. `out` and the arguments are
tensors; `out.g` is the upstream gradient, and the rule leaves `.g` on each argument:

    @rule(torch.matmul, samples=["r(3, 4), r(4, 5)"])
    def matmul(out, a, b):
        a.g = out.g @ b.mT
        b.g = a.mT @ out.g

Where an argument was stretched by broadcasting, its `.g` may have the stretched shape: the sum over
the stretched axes is taken for all rules in one place. Rules branch on shapes and on static
arguments, never on values.

A second shelf, KERNELS, is for the fast step: there a rule's step is one or two of torch's own kernels. Nobody
reads what is derived with it, so its rules say less.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from chainrule.recording.calls import operation_name
from chainrule.recording.numbers import Tracked


@dataclass(frozen=True)
class Rule:
    """One operation's backward step."""

    name: str
    function: Callable[..., Any]  # the operation itself
    backward: Callable[..., Any]
    samples: tuple[str, ...] = ()
    elementwise: bool = False
    note: str = ""
    holomorphic: bool = False
    complex: bool = False
    source: str = ""
    signature: inspect.Signature = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", inspect.signature(self.backward))

    @property
    def _takes_any(self) -> bool:
        """Whether the rule has a `**ignored` for keywords that do not matter backward."""
        return any(p.kind is p.VAR_KEYWORD for p in self.signature.parameters.values())

    def bind(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments | None:
        """The rule's arguments for a call as the person wrote it; None where the rule does not cover it."""
        names = list(self.signature.parameters)[1:]
        renamed: dict[str, Any] = {}
        for key, value in kwargs.items():
            known = key if key in names else KEYWORDS.get(key, key)
            if isinstance(known, int):
                known = names[known] if known < len(names) else key
            if known in names or self._takes_any:
                renamed[known] = value
            elif value is not None and value is not False:
                return None
        try:
            return self.signature.bind(out, *args, **renamed)
        except TypeError:
            return None


# Keywords that torch spells in several ways, as positions among the rule's arguments or as names.
KEYWORDS: dict[str, int | str] = {"input": 0, "self": 0, "tensors": 0, "other": 1, "mat2": 1, "axis": "dim",
                                   "keepdims": "keepdim", "exponent": 1, "vec2": 1, "target": 1, "axis0": "dim0", "axis1": "dim1"}  # fmt: skip


@dataclass
class RuleBook:
    """Rules by operation, operations that pass no gradient, and functions run as other functions.

    What a book does not say is looked up in the book `beneath` it. A person's rule goes into the book beneath: it
    counts, and what this book had `replaced` the former rule with does not.
    """

    rules: dict[Any, Rule] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    openings: dict[Any, Callable[..., Any]] = field(default_factory=dict)
    beneath: RuleBook | None = None
    replaced: dict[str, Rule | None] = field(default_factory=dict)

    def find(self, operation: str) -> Rule | None:
        return next(self.steps(operation), None)

    def steps(self, operation: str) -> Iterator[Rule]:
        """The rules for `operation`: where one does not cover a call, the next is asked."""
        if operation in self.rules and self._counts(operation):
            yield self.rules[operation]
        if self.beneath is not None:
            yield from self.beneath.steps(operation)

    def of_code(self, code: Any) -> Rule | None:
        """The rule for a Python function of the person's own."""
        return self.rules.get(code) or (self.beneath.of_code(code) if self.beneath else None)

    def whole(self, function: Any) -> bool:
        """Whether the recorder writes `function` down as one operation."""
        name = operation_name(function)
        return (
            name in self.rules or name in self.constants or (self.beneath is not None and self.beneath.whole(function))
        )

    def opened(self, function: Any) -> Callable[..., Any] | None:
        if function in self.openings and self._counts(operation_name(function)):
            return self.openings[function]
        return self.beneath.opened(function) if self.beneath else None

    def _counts(self, operation: str) -> bool:
        return self.beneath is None or self.beneath.find(operation) is self.replaced[operation]

    def replaces(self, operation: str) -> None:
        """From here on, this book says what is done with `operation`."""
        if self.beneath is not None:
            self.replaced[operation] = self.beneath.find(operation)


BOOK = RuleBook()
KERNELS = RuleBook(beneath=BOOK)


def rule(
    *functions: Any,
    samples: list[str] | None = None,
    elementwise: bool = False,
    note: str = "",
    holomorphic: bool = False,
    complex: bool = False,
    source: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a backward step to the book, for each of `functions` (spellings with the same arguments).

    `samples` are calls written as text, made into tensors by `chainrule.rules.samples`; every rule is
    tested on its samples against autograd. `elementwise` says that the output has the broadcast shape
    of the tensor arguments. `note` is the convention at kinks, or whatever else a card should say;
    `source` the paper, textbook or definition that the formula comes from.

    Rules are written for real numbers. `holomorphic` says that the output is a complex-differentiable
    function of the arguments, so that the same formula holds for complex numbers between conjugates;
    `complex` that the rule itself is written for complex numbers, with torch's convention: the
    gradient of a real loss towards z = x + iy is dL/dx + i dL/dy.

    A function of your own may be given instead of torch's: what happens inside it is then left to
    your rule.

    >>> import torch
    >>> def clipped(x): return x.clamp(-1, 1)
    >>> @rule(clipped)
    ... def straight_through(out, x):
    ...     x.g = out.g
    """

    def add(backward: Callable[..., None]) -> Callable[..., None]:
        for function in functions:
            own = inspect.isfunction(function) and not (function.__module__ or "").startswith("torch")
            name = function.__name__ if own else operation_name(function)
            made = Rule(name, function, backward, tuple(samples or ()), elementwise, note, holomorphic, complex, source)
            BOOK.rules[function.__code__ if own else name] = made
        return backward

    return add


def constant(*functions: Any, why: str) -> None:
    """Operations whose result is treated as constant, as autograd treats it."""
    for function in functions:
        BOOK.constants[function if isinstance(function, str) else operation_name(function)] = why


def kernel(*functions: Any, samples: list[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a backward step made of torch's own kernels to the second shelf, for each of `functions`.

    A kernel that gives several gradients is asked for those that are `reached` alone. Where the rule returns
    NotImplemented, the ordinary one is taken.
    """

    def add(backward: Callable[..., None]) -> Callable[..., None]:
        for function in functions:
            name = operation_name(function)
            KERNELS.rules[name] = Rule(name, function, backward, tuple(samples))
            KERNELS.replaces(name)
        return backward

    return add


def opening(*functions: Any, book: RuleBook = BOOK) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Record the decorated function in place of `functions`: the same values from simpler parts.

    Where it returns NotImplemented, the call is recorded as it is.
    """

    def add(replacement: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            book.openings[function] = replacement
            book.replaces(operation_name(function))
        return replacement

    return add


def reached(value: Any) -> bool:
    """Of an argument, whether its gradient is asked for. Of one of several results, whether the program goes on from
    it; where it does not, its `.g` is zero."""
    return getattr(value, "reached", value is not None)


def assume_size(x: Any, axis: int, size: int) -> None:
    """The rule took a path that holds only while `x.shape[axis] == size`: the derived code asserts it."""
    number = x.shape[axis]
    if isinstance(number, Tracked):
        home = number.home
        home.recorder.assume(home.number(operator.eq, (number, size), True))


def assume(statement: Any, recorder_of: Any) -> None:
    """The rule took a path that holds only while the tensor `statement` is true."""
    number = recorder_of.shape[0] if recorder_of.ndim else None
    if isinstance(number, Tracked):
        recorder = number.home.recorder
        entry = recorder.entry(statement)
        if entry is not None:
            recorder.assume(entry.node)
