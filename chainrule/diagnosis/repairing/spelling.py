"""Spells values with the person's own names, and with their own text wherever it stands in the statement that is changed."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import fx

from chainrule.diagnosis.explaining.scales import Named
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Span, span_of
from chainrule.diagnosis.repairing.numbers import ALONG
from chainrule.diagnosis.repairing.numpy_spelling import in_numpy, is_torch_call, name_in
from chainrule.diagnosis.repairing.parentheses import binding_of, is_product
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.repairing.wording import numbers_in, only_stretched
from chainrule.show.python import ATOM, PRODUCT, SUM, UNARY, Python, Spelled

if TYPE_CHECKING:
    pass


LONGEST = 2000  # characters of an expression
_DEEPEST = 60  # values in one another


class InPlace(Python):
    """Spells nodes with the person's names, and with their own text where it stands in the same statement."""

    def __init__(self, reach: Reach, statement: Span | None, gradients: Mapping[fx.Node, str] | None = None) -> None:
        names = {**reach.sizes, **reach.names, **(gradients or {})}
        super().__init__(names.get)
        self.statement = statement
        self.space, self.numbers, self.arrays = reach.space, reach.known_numbers, reach.arrays
        self.verbatim: dict[fx.Node, str] = {}  # the operands of the operation that is changed, as they stand there
        self.unspelled: list[Any] = []
        self.depth = 0
        self.sizes, self.style = reach.named_sizes, reach.style
        self.instead: dict[fx.Node, Any] = {}  # what stands for a value that is only stretched
        held = source.statement_at(statement) if statement is not None else None
        self.held = reach.held
        self.written = numbers_in(held, reach.held) if held is not None else {}  # numbers, as they stand there

    def expression(self, node: fx.Node) -> Spelled:
        """As everywhere, with the modules under the names that they have in the person's file; or in NumPy."""
        if "text" in node.meta:  # written as it should stand there
            return str(node.meta["text"]), ATOM
        if self.arrays and is_torch_call(node):
            spelled = in_numpy(self, node, name_in(self.space))
            if spelled is None:
                self.unspelled.append(node)
            return spelled or ("", ATOM)
        self.instead.update(only_stretched(node, self.variable))
        args = node.args
        if node.target is operator.mul and 1 in args:
            rest = args[0] if args[1] == 1 else args[1]
            if isinstance(rest, fx.Node) and getattr(rest.meta.get("val"), "shape", None) == _shape(node):
                return self.spell(rest)
        if node.target is operator.mul and -1 in args:
            return self._opposite(args[0] if args[1] == -1 else args[1])
        if node.meta["operation"] == "neg":
            return self._opposite(args[0])
        if node.target is operator.sub:  # a - b - c, not a - (b + c)
            text = self.text(args[0], SUM)
            for term in self._terms(args[1]):
                text = _less(text, self._bound(term, SUM + 1))
            return text, SUM
        if (axis := self._axis(node)) is not None:
            given = self._arguments((axis, *args[2:]), node.kwargs)
            return f"{self.text(args[0], ATOM)}.{node.target}({given})", ATOM
        text, binding = super().expression(node)
        if "F" not in self.space and text.startswith("F."):
            text = f"torch.nn.functional.{text[2:]}"
        return text, binding

    def _axis(self, node: fx.Node) -> Named | None:
        """The axis along which a node reduces, under the person's name for it."""
        if node.op != "call_method" or node.target not in ALONG or len(node.args) < 2:
            return None
        given: Any = node.args[1]
        axis = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
        name = self.numbers.axis(axis) if type(axis) is int else None
        return Named(axis, name) if name is not None else None

    def constant(self, value: Any) -> Spelled:
        """A number under the person's name for it: `reg`, `eps`, not what they are in this run. One that has none here is
        not written: the code would be right for this run alone."""
        if isinstance(value, Named):
            return repr(value), binding_of(repr(value))
        if type(value) is float and not value.is_integer():
            known = self.numbers.text(value, self.written)
            if known is not None:
                return known, binding_of(known)
            if self.numbers.is_of_this_run(value):
                self.unspelled.append(value)
        return super().constant(value)

    def _opposite(self, value: Any) -> Spelled:
        """`b - a` of `a - b`, `x` of `-x`, where that stands nowhere in the person's code."""
        if isinstance(value, fx.Node) and not self._known(value):
            if value.meta["operation"] == "neg":
                return self.spell(value.args[0])
            if value.target is operator.sub:
                return _less(self.text(value.args[1], SUM), self._bound(value.args[0], SUM + 1)), SUM
        text, binding = self.spell(value)
        if _is_negative(text, binding):
            return _positive(text), binding_of(_positive(text))
        return f"-{text}" if binding >= PRODUCT else f"-({text})", min(max(binding, PRODUCT), UNARY)

    def _known(self, value: fx.Node) -> bool:
        """Whether a value has a name here, or stands in the person's code."""
        return value in self.verbatim or span_of(value) is not None or bool(self.variable(value))

    def _bound(self, value: Any, tight: int) -> Spelled:
        """A value in parentheses where it binds less tightly."""
        text, binding = self.spell(value)
        return (text, binding) if binding >= tight else (f"({text})", ATOM)

    def infix(self, target: Any, left: Any, right: Any) -> Spelled:
        return super().infix(target, self._by_name(left), self._by_name(right))

    def joined(self, target: Any, left: Spelled, right: Spelled) -> Spelled:
        """As everywhere; `a - b` for `a + -b` and for `-b + a`, and `a` for `1 * a`."""
        if target is operator.mul and left == ("1", ATOM):
            return right
        if target is operator.add:
            first, last = (left, right) if _is_negative(*right) else (right, left)
            if _is_negative(*last):
                return f"{self.operand(*first, SUM, '-')} - {_positive(last[0])}", SUM
        text, binding = super().joined(target, left, right)
        return self.style.power(text) if target is operator.pow else text, binding

    def operand(self, text: str, binding: int, tight: int, symbol: str) -> str:
        """A product in a product needs no parentheses: it is the same but for rounding."""
        if symbol == "*" and tight > PRODUCT and is_product(text):
            return text
        return super().operand(text, binding, tight, symbol)

    def _by_name(self, value: Any) -> Any:
        """A whole number of a sum, a product or a power, as a value that is spelled by its name."""
        whole = type(value) in (int, float) and float(value).is_integer()
        text = self.numbers.whole(value) if whole else None
        return Named(value, text) if text is not None else value

    def _terms(self, value: Any) -> tuple[Any, ...]:
        """The terms of a sum that is spelled here, and stands nowhere in the person's code; of anything else, itself."""
        if not isinstance(value, fx.Node) or value.target is not operator.add:
            return (value,)
        return value.args if not self._known(value) and all(isinstance(a, fx.Node) for a in value.args) else (value,)

    def spell(self, value: Any) -> Spelled:
        if self.unspelled:
            return "", ATOM
        self.depth += 1
        if self.depth > _DEEPEST:  # a loop that is written out
            self.unspelled.append(value)
            return "", ATOM
        text, binding = self._spelled(value)
        self.depth -= 1
        if len(text) > LONGEST and isinstance(value, fx.Node):  # what is read often is written often: it has no end
            self.unspelled.append(value)
        return text, binding

    def _spelled(self, value: Any) -> Spelled:
        if isinstance(value, fx.Node):
            if value in self.instead:
                return super().spell(self.instead[value])
            named = self.sizes.of(value)
            if named is not None:
                return named, ATOM
        if isinstance(value, fx.Node) and value.meta["phase"] != "sketch":
            if value in self.verbatim:
                return self.verbatim[value], binding_of(self.verbatim[value])
            own, same = span_of(value), value.meta.get("same_as")
            here = self.statement is not None and own is not None and own.within(self.statement)
            name = self.variable(value)
            if name:
                return name, ATOM
            if same is not None:  # `dz = da`: in its own statement what stands there, else its name
                return self.spell(same) if here or not value.meta.get("name") else (str(value.meta["name"]), ATOM)
            if here and own is not None and own != self.statement:
                text = source.text_at(own)
                return text, binding_of(text)
            if value.op == "placeholder":
                self.unspelled.append(value)
            if (
                own is not None and (statement := source.statement_at(own)) is not None
            ):  # its numbers, as they stand there
                self.written = {**numbers_in(statement, self.held), **self.written}
        return super().spell(value)


def _is_negative(text: str, binding: int) -> bool:
    return text.startswith("-") and binding >= PRODUCT


def _positive(text: str) -> str:
    """What `-1 * x`, or `-x * y`, is the opposite of."""
    return text.removeprefix("-").removeprefix("1 * ")


def _less(text: str, term: Spelled) -> str:
    """A sum without a term."""
    return f"{text} + {_positive(term[0])}" if _is_negative(*term) else f"{text} - {term[0]}"


def _shape(node: fx.Node) -> Any:
    return getattr(node.meta.get("val"), "shape", None)
