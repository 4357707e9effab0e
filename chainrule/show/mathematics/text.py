"""Terms in plain text: ∂L/∂a = ∂L/∂out bᵀ."""

from __future__ import annotations

from collections.abc import Mapping

from chainrule.show.mathematics.notation import Show, Spelling, printed
from chainrule.show.mathematics.term import Term

_RAISED, _LOWERED = str.maketrans("0123456789−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"), str.maketrans("0123456789-", "₀₁₂₃₄₅₆₇₈₉₋")


def text(term: Term) -> str:
    """`term` on one line.

    >>> from chainrule.show.mathematics.term import equation, gradient, matmul, name, transposed
    >>> text(equation(gradient("a"), matmul(gradient("out"), transposed(name("b")))))
    '∂L/∂a = ∂L/∂out bᵀ'
    """
    return printed(term, TEXT)


def lowered(axes: tuple[str, ...]) -> str:
    """Axes as a subscript.

    >>> lowered(("0",)), lowered(("0", "-1")), lowered(())
    ('₀', '₀,₋₁', '')
    """
    return ",".join(axes).translate(_LOWERED)


def _listed(term: Term, show: Show, opening: str = "", closing: str = "") -> str:
    return opening + ", ".join(show(p) for p in term.parts) + closing


def _power(term: Term, show: Show) -> str:
    base, exponent = term.parts
    whole = exponent.text.removesuffix(".0").translate(_RAISED) if exponent.sign == "number" else ""
    whole = whole if whole.lstrip("⁻").isdigit() else ""
    return f"{show(base)}{whole}" if whole else f"{show(base)}^{show(exponent)}"


def _index(term: Term, show: Show) -> str:
    return f"{show(term.parts[0])}[{', '.join(show(p) for p in term.parts[1:])}]"


def _tuple(term: Term, show: Show) -> str:
    return _listed(term, show, "(", ",)" if len(term.parts) == 1 else ")")


TEXT: Mapping[str, Spelling] = {
    "name": lambda term, show: term.text,
    "number": lambda term, show: term.text,
    "word": lambda term, show: term.text,
    "letter": lambda term, show: term.text,
    "gradient": lambda term, show: f"∂L/∂{term.text}" + (f"[{', '.join(term.axes)}]" if term.axes else ""),
    "towards": "∂L/∂%s",
    "via": "%s|%s",
    "partial": "∂%s/∂%s",
    "equation": "%s = %s",
    "add": "%s + %s",
    "sub": "%s − %s",
    "matmul": "%s %s",
    "scale": "%s %s",
    "dot": "%s · %s",
    "hadamard": "%s ⊙ %s",
    "div": "%s / %s",
    "power": _power,
    "neg": "−%s",
    "floor": "⌊%s⌋",
    "abs": "|%s|",
    "sqrt": "√%s",
    "compare": lambda term, show: f" {term.text} ".join(show(p) for p in term.parts),
    "and": "%s and %s",
    "or": "%s or %s",
    "not": "not %s",
    "transpose": "%sᵀ",
    "adjoint": "%sᴴ",
    "inverse": "%s⁻¹",
    "cases": "%s where %s, else %s",
    "indicator": "[%s]",
    "parens": "(%s)",
    "index": _index,
    "slice": lambda term, show: ":".join(show(p) for p in term.parts),
    "element": lambda term, show: f"{show(term.parts[0])}[{', '.join(term.text)}]",
    "series": lambda term, show: f"Σ_{term.text} {show(term.parts[0])}",
    "size": lambda term, show: f"size{lowered(term.axes)}({show(term.parts[0])})",
    "big": lambda term, show: f"{term.text}{lowered(term.axes)} {show(term.parts[0])}",
    "over": lambda term, show: term.text + lowered(term.axes) + _listed(term, show, "(", ")"),
    "call": lambda term, show: term.text + _listed(term, show, "(", ")"),
    "keyword": lambda term, show: f"{term.text}={show(term.parts[0])}",
    "list": _listed,
    "tuple": _tuple,
    "brackets": lambda term, show: _listed(term, show, "[", "]"),
}
