"""The spelling of one node as Python: operators, methods, functions, indices."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

ATOM, POWER, UNARY, PRODUCT, SUM, COMPARISON = 10, 9, 8, 7, 6, 1
_INFIX: dict[Any, tuple[str, int]] = {
    operator.add: ("+", SUM), operator.sub: ("-", SUM), operator.mul: ("*", PRODUCT),
    operator.truediv: ("/", PRODUCT), operator.matmul: ("@", PRODUCT), operator.mod: ("%", PRODUCT),
    operator.floordiv: ("//", PRODUCT), operator.pow: ("**", POWER), operator.and_: ("&", 4),
    operator.xor: ("^", 3), operator.or_: ("|", 2), operator.gt: (">", COMPARISON),
    operator.ge: (">=", COMPARISON), operator.lt: ("<", COMPARISON), operator.le: ("<=", COMPARISON),
    operator.eq: ("==", COMPARISON), operator.ne: ("!=", COMPARISON),
}  # fmt: skip
_BINDING = dict(_INFIX.values())
_PREFIX: dict[Any, tuple[str, int]] = {
    operator.neg: ("-", UNARY),
    operator.invert: ("~", UNARY),
    operator.not_: ("not ", 0),
}

Spelled = tuple[str, int]  # text and how tightly it binds


class Python:
    """Spells nodes; `variable(node)` gives the name of a value that has one, else None."""

    def __init__(self, variable: Callable[[fx.Node], str | None]) -> None:
        self.variable = variable
        self.reserved: set[str] = set()  # names that the code uses besides
        self.repeated: set[fx.Node] = set()  # values that were written more than once inside one expression
        self.place: Callable[[], tuple[torch.device, str] | None] = lambda: None  # a device, and the code that gives it

    def text(self, value: Any, tight: int = 0) -> str:
        """`value` as source text, in parentheses where it binds less tightly than `tight`."""
        text, binding = self.spell(value)
        return f"({text})" if binding < tight else text

    def condition(self, node: fx.Node) -> str:
        """What the code asserts of a value."""
        return self.text(node)

    def spell(self, value: Any) -> Spelled:
        if isinstance(value, fx.Node):
            name = self.variable(value)
            return (name, ATOM) if name else self.expression(value)
        return self.constant(value)

    def expression(self, node: fx.Node) -> Spelled:
        """The right-hand side for `node`, whether or not it has a name."""
        target, args = node.target, node.args
        if node.op == "placeholder":
            return str(node.meta.get("name")), ATOM
        if node.op == "call_method":
            return f"{self.text(args[0], ATOM)}.{target}({self._arguments(args[1:], node.kwargs)})", ATOM
        if target is getattr:
            return f"{self.text(args[0], ATOM)}.{args[1]}", ATOM
        if target is operator.getitem:
            return f"{self.text(args[0], ATOM)}[{self._index(args[1])}]", ATOM
        if target in _PREFIX:
            return self.prefixed(target, args[0])
        if target in _INFIX and len(args) == 2:
            return self.infix(target, args[0], args[1])
        if hasattr(target, "spell_step"):
            return target.spell_step(self, args), ATOM
        return f"{path_of(target)}({self._arguments(args, node.kwargs)})", ATOM

    def statements(self, target: str, node: fx.Node) -> list[str]:
        """The lines that follow `target = ...` where a library writes values in place."""
        return []

    def needs_line(self, node: fx.Node) -> bool:
        """Whether the value of `node` cannot be written inside another expression."""
        return False

    def prefixed(self, target: Any, operand: Any) -> Spelled:
        sign, binding = _PREFIX[target]
        return f"{sign}{self.text(operand, binding)}", binding

    def infix(self, target: Any, left: Any, right: Any) -> Spelled:
        if target is operator.mul and not isinstance(right, fx.Node) and isinstance(left, fx.Node):
            left, right = right, left  # 2 * x
        return self.joined(target, self.spell(left), self.spell(right))

    def joined(self, target: Any, left: Spelled, right: Spelled) -> Spelled:
        """Two operands, as they are spelled, and the operator between them."""
        symbol, binding = _INFIX[target]
        before, after = (binding + 1, binding) if target is operator.pow else (binding, binding + 1)
        one, other = self.operand(*left, before, symbol), self.operand(*right, after, symbol)
        return f"{one} {symbol} {other}", binding

    def operand(self, text: str, binding: int, tight: int, symbol: str) -> str:
        """The operand of an infix operator, in parentheses where it binds less tightly, or mixes `*` and `@`."""
        mixed = binding == PRODUCT == _BINDING[symbol] and (" @ " in _outer(text)) != (symbol == "@")
        return f"({text})" if binding < tight or mixed else text

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return ", ".join([*(self.text(a) for a in args), *(f"{k}={self.text(v)}" for k, v in kwargs.items())])

    def _index(self, index: Any) -> str:
        if isinstance(index, tuple) and index:
            return ", ".join(self._index(i) for i in index) + ("," if len(index) == 1 else "")
        if isinstance(index, slice):
            start, stop = (self.text(v) if v is not None else "" for v in (index.start, index.stop))
            return f"{start}:{stop}" + (f":{self.text(index.step)}" if index.step is not None else "")
        return "..." if index is Ellipsis else self.text(index)

    def constant(self, value: Any) -> Spelled:
        if isinstance(value, bool) or value is None or isinstance(value, str):
            return repr(value) if not isinstance(value, str) else '"' + value.replace('"', r"\"") + '"', ATOM
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")', ATOM
        if isinstance(value, int | float):
            return repr(value), UNARY if value < 0 else ATOM
        if isinstance(value, torch.Size | tuple):
            return "(" + ", ".join(self.text(v) for v in value) + ("," if len(value) == 1 else "") + ")", ATOM
        if isinstance(value, list):
            return "[" + ", ".join(self.text(v) for v in value) + "]", ATOM
        if isinstance(value, slice):
            return f"slice({self.text(value.start)}, {self.text(value.stop)}, {self.text(value.step)})", ATOM
        if value is Ellipsis:
            return "...", ATOM
        if isinstance(value, torch.device):
            place = self.place()
            return place[1] if place is not None and place[0] == value else f'"{value}"', ATOM
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return str(value), ATOM
        return repr(value), ATOM


def _outer(text: str) -> str:
    """`text` without what stands in brackets."""
    kept, depth = [], 0
    for character in text:
        depth += character in "([{"
        if not depth:
            kept.append(character)
        depth -= character in ")]}"
    return "".join(kept)


@functools.cache
def path_of(function: Any) -> str:
    """How emitted code calls `function`, from `import torch` (and `F`) alone.

    >>> path_of(torch.relu), path_of(F.gelu), path_of(torch.linalg.inv)
    ('torch.relu', 'F.gelu', 'torch.linalg.inv')
    """
    name = getattr(function, "__name__", str(function))
    for prefix, module in (
        ("F", F), ("torch", torch), ("torch.linalg", torch.linalg), ("torch.special", torch.special),
        ("torch.fft", torch.fft), ("torch.func", torch.func),
    ):  # fmt: skip
        for candidate in (name, name.split("_", 1)[-1]):
            if getattr(module, candidate, None) is function:
                return f"{prefix}.{candidate}"
    if isinstance(function, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return f"torch.ops.{function}"
    if inspect.ismethoddescriptor(function) or getattr(function, "__module__", "") == "torch._tensor":
        return f"torch.Tensor.{name}"
    return f"{getattr(function, '__module__', 'torch')}.{name}"
