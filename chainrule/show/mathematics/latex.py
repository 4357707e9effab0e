r"""Terms in LaTeX, for a document with amsmath: \frac{\partial L}{\partial W_1} = X^{\top} ..."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chainrule.show.mathematics.names import GREEK, decomposed
from chainrule.show.mathematics.notation import Show, Spelling, axes_in_words, bare, branches, printed
from chainrule.show.mathematics.term import Term

_ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_ESCAPED |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
_ESCAPED |= {"<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}"}
_COMMANDS = {letter: name for name, letter in GREEK.items()} | {"ε": "varepsilon", "λ": "lambda"} | {"ℓ": "ell"}
_KNOWN = frozenset(("exp", "log", "ln", "sin", "cos", "tan", "sinh", "cosh", "tanh", "max", "min", "det"))
_SIGNS = {"Σ": r"\sum", "Π": r"\prod", "σ": r"\sigma", "ψ": r"\psi", "Re": r"\operatorname{Re}"}
_COMPARED = {">": ">", "≥": r"\ge", "<": "<", "≤": r"\le", "=": "=", "≠": r"\ne"}


def latex(term: Term) -> str:
    r"""`term` for math mode.

    >>> from chainrule.show.mathematics.term import equation, gradient, matmul, name, transposed
    >>> print(latex(equation(gradient("W1"), matmul(transposed(name("X")), gradient("Z")))))
    \frac{\partial L}{\partial W_{1}} = {X}^{\top} \, \frac{\partial L}{\partial Z}
    """
    return printed(term, LATEX)


def escaped(text: str) -> str:
    r"""`text` for LaTeX's text mode; letters that plain LaTeX does not know are named by their code point.

    >>> print(escaped("50% of a_b"))
    50\% of a\_b
    """
    return "".join(_character(c) for c in text)


def _character(c: str) -> str:
    if c in _ESCAPED:
        return _ESCAPED[c]
    if c in _COMMANDS:
        return f"\\ensuremath{{\\{_COMMANDS[c]}}}"
    if c in _IN_TEXT:
        return f"\\ensuremath{{{_IN_TEXT[c]}}}"
    return c if c.isascii() or "À" <= c <= "ÿ" else f"[U+{ord(c):04X}]"


_IN_TEXT = {
    "∂": r"\partial ", "⊙": r"\odot ", "·": r"\cdot ", "−": "-", "×": r"\times ", "≥": r"\ge ", "≤": r"\le ", "≠": r"\ne ",
    "√": r"\surd ", "∞": r"\infty ", "→": r"\to ", "Π": r"\Pi ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "…": r"\ldots ",
    "ᵀ": r"^{\top}", "²": "^2", "³": "^3", "ᴴ": "^{H}",
}  # fmt: skip


def _name(text: str) -> str:
    found = decomposed(text)
    base = _base(found.base)
    if found.accent:
        base = f"\\{found.accent}{{{base}}}"
    if not found.index:
        return base
    index = found.index if found.index.isdigit() or len(found.index) == 1 else f"\\mathrm{{{_letters(found.index)}}}"
    return f"{base}_{{{index}}}"


def _base(base: str) -> str:
    if base in _COMMANDS:
        return f"\\{_COMMANDS[base]}"
    if len(base) == 1 and base.isascii() and base.isalpha():
        return base
    return f"\\mathit{{{_letters(base)}}}" if re.fullmatch(r"\w+", base, re.ASCII) else f"\\text{{{escaped(base)}}}"


def _letters(text: str) -> str:
    return text.replace("_", r"\_") if re.fullmatch(r"\w+", text, re.ASCII) else f"\\text{{{escaped(text)}}}"


def _number(term: Term, show: Show) -> str:
    text = term.text.replace("−", "-").replace("∞", r"\infty").replace("π", r"\pi")
    if text == "NaN":
        return r"\mathrm{NaN}"
    mantissa, e, exponent = text.partition("e")
    if not e or not mantissa[-1:].isdigit():
        return text
    return ("" if mantissa == "1" else f"{mantissa} \\times ") + f"10^{{{int(exponent)}}}"


def _listed(term: Term, show: Show, opening: str = "", closing: str = "") -> str:
    return opening + ", ".join(show(p) for p in term.parts) + closing


def _called(term: Term, show: Show) -> str:
    name = _SIGNS.get(term.text) or (
        f"\\{term.text}" if term.text in _KNOWN else f"\\operatorname{{{escaped(term.text)}}}"
    )
    below = f"_{{\\text{{{axes_in_words(term.axes)}}}}}" if term.axes else ""
    return f"{name}{below}" + _listed(term, show, r"\left(", r"\right)")


def _big(term: Term, show: Show) -> str:
    below = f"_{{\\text{{{axes_in_words(term.axes)}}}}}" if term.axes else ""
    return f"{_SIGNS[term.text]}{below} {show(term.parts[0])}"


def _cases(term: Term, show: Show) -> str:
    pairs, otherwise = branches(term)
    rows = [f"{show(bare(value))} & \\text{{where }} {show(condition)}" for value, condition in pairs]
    rows.append(f"{show(otherwise)} & \\text{{else}}")
    return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"


def _index(term: Term, show: Show) -> str:
    return f"{show(term.parts[0])}\\left[{', '.join(show(p) for p in term.parts[1:])}\\right]"


def _indexed(base: str, indices: str) -> str:
    base = f"({base})" if "_" in base and indices else base
    return f"{base}_{{{indices}}}" if indices else base


LATEX: Mapping[str, Spelling] = {
    "name": lambda term, show: _name(term.text),
    "number": _number,
    "word": lambda term, show: f"\\text{{{escaped(term.text)}}}" if term.text else "",
    "letter": lambda term, show: f"\\{_COMMANDS[term.text]}" if term.text in _COMMANDS else term.text,
    "gradient": lambda term, show: (
        f"\\frac{{\\partial L}}{{\\partial {_indexed(_name(term.text), ''.join(term.axes))}}}"
    ),
    "towards": r"\frac{\partial L}{\partial %s}",
    "via": r"\left.%s\right|_{%s}",
    "partial": r"\frac{\partial %s}{\partial %s}",
    "equation": "%s = %s",
    "add": "%s + %s",
    "sub": "%s - %s",
    "matmul": r"%s \, %s",
    "scale": r"%s \, %s",
    "dot": r"%s \cdot %s",
    "hadamard": r"%s \odot %s",
    "div": lambda term, show: f"\\frac{{{show(bare(term.parts[0]))}}}{{{show(bare(term.parts[1]))}}}",
    "power": lambda term, show: f"{{{show(term.parts[0])}}}^{{{show(bare(term.parts[1]))}}}",
    "neg": "-%s",
    "floor": r"\left\lfloor %s \right\rfloor",
    "abs": r"\left|%s\right|",
    "sqrt": lambda term, show: f"\\sqrt{{{show(bare(term.parts[0]))}}}",
    "compare": lambda term, show: f" {_COMPARED[term.text]} ".join(show(p) for p in term.parts),
    "and": r"%s \text{ and } %s",
    "or": r"%s \text{ or } %s",
    "not": r"\text{not } %s",
    "transpose": r"{%s}^{\top}",
    "adjoint": r"{%s}^{H}",
    "inverse": r"{%s}^{-1}",
    "cases": _cases,
    "indicator": r"\left[%s\right]",
    "parens": r"\left(%s\right)",
    "index": _index,
    "slice": lambda term, show: ":".join(show(p) for p in term.parts),
    "element": lambda term, show: _indexed(show(term.parts[0]), term.text),
    "series": lambda term, show: f"\\sum_{{{term.text}}} {show(term.parts[0])}",
    "size": lambda term, show: (
        f"\\operatorname{{size}}_{{\\text{{{axes_in_words(term.axes)}}}}}\\left({show(term.parts[0])}\\right)"
    ),
    "big": _big,
    "over": _called,
    "call": _called,
    "keyword": lambda term, show: f"\\mathrm{{{_letters(term.text)}}}\\!=\\!{show(term.parts[0])}",
    "list": _listed,
    "tuple": lambda term, show: _listed(term, show, r"\left(", r"\right)"),
    "brackets": lambda term, show: _listed(term, show, r"\left[", r"\right]"),
}
