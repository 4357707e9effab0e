"""An expression as mathematics writes it, before it is printed in any notation.

A `Term` is a sign with parts: `matmul` of two terms, `over` some axes, the `gradient` of a name. The reader makes
terms from the nodes of a program; each notation (plain text, LaTeX, MathML) is a table that spells the signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from chainrule.show.python import ATOM, COMPARISON, POWER, PRODUCT, SUM, UNARY

ALONE = -1  # needs parentheses wherever it is not alone
_BINDING = {
    "gradient": UNARY, "partial": UNARY, "towards": UNARY, "via": UNARY, "add": SUM, "sub": SUM, "matmul": PRODUCT, "scale": PRODUCT, "dot": PRODUCT,
    "hadamard": PRODUCT, "div": PRODUCT, "power": POWER, "inverse": POWER, "and": ALONE, "or": ALONE, "not": ALONE,
    "cases": ALONE, "compare": COMPARISON, "big": COMPARISON + 1, "series": SUM + 1, "equation": ALONE,
}  # fmt: skip
LEAVES = ("name", "gradient", "number", "word", "letter")


@dataclass(frozen=True)
class Term:
    """A sign with its parts. `text` is the name, number or word of a leaf, and of other signs what stands for the
    sign itself (`<`, `softmax`); `axes` are what a sum goes over, and of a gradient the indices of one element."""

    sign: str
    parts: tuple[Term, ...] = ()
    text: str = ""
    axes: tuple[str, ...] = ()
    variable: str = ""  # of a gradient, the name in the code

    @property
    def binding(self) -> int:
        """How tightly it holds together, on the scale of `chainrule.show.python`."""
        if self.sign == "neg":
            return UNARY if self.parts[0].sign in LEAVES else PRODUCT
        if self.sign == "number" and self.text.startswith("−"):
            return UNARY
        return _BINDING.get(self.sign, ATOM)

    def tight(self, binding: int) -> Term:
        """Itself, in parentheses where it binds less tightly than `binding`."""
        return parens(self) if self.binding < binding else self

    def walk(self) -> Iterator[Term]:
        """Itself and every term inside it, in reading order."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def names(self) -> list[str]:
        """The names in it as code writes them, in reading order; `w1.g` for a gradient.

        >>> equation(gradient("w1"), matmul(transposed(name("x")), gradient("l1"))).names
        ['w1.g', 'x', 'l1.g']
        """
        return [t.variable or t.text for t in self.walk() if t.sign in ("name", "gradient")]


def name(text: str) -> Term:
    return Term("name", text=text)


def gradient(of: str, variable: str = "") -> Term:
    """The gradient of the loss with respect to the value named `of`; `variable` is its name in the code."""
    return Term("gradient", text=of, variable=variable or f"{of}.g")


def number(value: float | str) -> Term:
    return Term("number", text=str(value).replace("-", "−") if not isinstance(value, str) else value)


def letter(text: str) -> Term:
    """An index, such as the n in the n-th row: no value of the program."""
    return Term("letter", text=text)


def word(text: str) -> Term:
    return Term("word", text=text)


def parens(inside: Term) -> Term:
    return Term("parens", (inside,))


def add(left: Term, right: Term) -> Term:
    return Term("add", (left.tight(SUM), right.tight(SUM)))


def sub(left: Term, right: Term) -> Term:
    return Term("sub", (left.tight(SUM), right.tight(SUM + 1)))


def matmul(left: Term, right: Term) -> Term:
    return Term("matmul", (left.tight(PRODUCT), right.tight(PRODUCT + 1)))


def hadamard(left: Term, right: Term) -> Term:
    """An elementwise product."""
    return Term("hadamard", (left.tight(PRODUCT), right.tight(PRODUCT + 1)))


def scale(number: Term, of: Term) -> Term:
    """A number times a value."""
    return Term("scale", (number.tight(PRODUCT), of.tight(PRODUCT + 1)))


def fraction(above: Term, below: Term) -> Term:
    return Term("div", (above.tight(PRODUCT), below.tight(PRODUCT + 1)))


def root(of: Term) -> Term:
    return Term("sqrt", (of.tight(ATOM),))


def transposed(of: Term) -> Term:
    return Term("transpose", (of.tight(ATOM),))


def element(of: Term, indices: str) -> Term:
    """One element: `w` with the indices "nm"; of a gradient, the derivative towards that element."""
    if of.sign == "gradient":
        return replace(of, axes=tuple(indices))
    if of.sign == "towards":
        return Term("towards", (element(of.parts[0], indices),))
    if of.sign == "via":
        return Term("via", (element(of.parts[0], indices), of.parts[1]))
    return Term("element", (of.tight(ATOM),), indices) if indices else of


def via(gradient: Term, through: Term) -> Term:
    """The share of a gradient that comes back through one of the values that were computed from its own."""
    return Term("via", (gradient, through.tight(ATOM)))


def towards(value: Term) -> Term:
    """The gradient of the loss with respect to a value that has no name."""
    return Term("towards", (value.tight(ATOM),))


def partial(above: Term, below: Term) -> Term:
    """∂above/∂below, both of them elements or values."""
    return Term("partial", (above.tight(ATOM), below.tight(ATOM)))


def summed(over: str, body: Term) -> Term:
    """The sum over indices, which are letters."""
    return Term("series", (body.tight(PRODUCT),), over) if over else body


def equation(left: Term, right: Term) -> Term:
    return Term("equation", (left, right))


def call(function: str, *arguments: Term) -> Term:
    return Term("call", arguments, text=function)


def cases(value: Term, where: Term, otherwise: Term) -> Term:
    return Term("cases", (value, where, otherwise))


def compare(left: Term, sign: str, right: Term) -> Term:
    return Term("compare", (left, right), text=sign)


def indicator(condition: Term) -> Term:
    """1 where the condition is true, else 0."""
    return Term("indicator", (condition,))


def power(base: Term, exponent: Term) -> Term:
    return Term("power", (base.tight(ATOM), exponent.tight(ATOM)))
