"""Terms in MathML Core, which browsers draw themselves. Each name carries `data-name`, the name in the code."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from chainrule.show.mathematics.names import decomposed
from chainrule.show.mathematics.notation import Show, Spelling, axes_in_words, bare, branches, printed
from chainrule.show.mathematics.term import Term

_ACCENTS = {"hat": "^", "bar": "¯", "tilde": "~"}
_LARGE = {"Σ": "∑", "Π": "∏"}


def mathml(term: Term, display: bool = False) -> str:
    """A `<math>` element; `display` sets it on a line of its own.

    >>> from chainrule.show.mathematics.term import name, transposed
    >>> mathml(transposed(name("X")))
    '<math><msup><mi data-name="X">X</mi><mo>⊤</mo></msup></math>'
    """
    block = ' display="block"' if display else ""
    return f"<math{block}>{printed(term, MATHML)}</math>"


def _row(*pieces: str) -> str:
    return f"<mrow>{''.join(pieces)}</mrow>"


def _operator(sign: str, **attributes: str) -> str:
    given = "".join(f' {k}="{v}"' for k, v in attributes.items())
    return f"<mo{given}>{escape(sign)}</mo>"


def _fenced(inside: str, opening: str = "(", closing: str = ")") -> str:
    fence = {"fence": "true", "stretchy": "true", "form": "prefix"}
    return _row(_operator(opening, **fence), inside, _operator(closing, **(fence | {"form": "postfix"})))


def _infix(sign: str, **attributes: str) -> Spelling:
    return lambda term, show: _row(_operator(sign, **attributes).join(show(p) for p in term.parts))


def _word(text: str) -> str:
    return f"<mtext>{escape(text)}</mtext>"


def _name(text: str, marked: str = "") -> str:
    """A name; `marked` is the name in the code that a reader points at with it."""
    found, mark = decomposed(text), f' data-name="{escape(marked)}"' if marked else ""
    upright = "" if len(found.base) == 1 else ' class="word"'
    if not found.accent and not found.index:
        return f"<mi{upright}{mark}>{escape(found.base)}</mi>"
    base = f"<mi{upright}>{escape(found.base)}</mi>"
    if found.accent:
        return f'<mover accent="true"{mark}>{base}{_operator(_ACCENTS[found.accent])}</mover>'
    index = f"<mn>{found.index}</mn>" if found.index.isdigit() else f"<mi>{escape(found.index)}</mi>"
    return f"<msub{mark}>{base}{index}</msub>"


def _gradient(term: Term, show: Show) -> str:
    below = _row(_operator("∂", form="prefix"), _indexed(_name(term.text), term.text, "".join(term.axes)))
    above = _row(_operator("∂", form="prefix"), "<mi>L</mi>")
    return f'<mfrac data-name="{escape(term.variable)}">{above}{below}</mfrac>'


def _partial(term: Term, show: Show) -> str:
    above, below = (_row(_operator("∂", form="prefix"), show(p)) for p in term.parts)
    return f"<mfrac>{above}{below}</mfrac>"


def _number(term: Term, show: Show) -> str:
    text = term.text
    mantissa, e, exponent = text.partition("e")
    if e and mantissa[-1:].isdigit():
        raised = f"<msup><mn>10</mn><mn>{str(int(exponent)).replace('-', '−')}</mn></msup>"
        return raised if mantissa == "1" else _row(f"<mn>{mantissa}</mn>", _operator("×"), raised)
    if text in ("π", "i", "∞"):
        return f"<mi>{text}</mi>"
    if text.startswith("−"):
        return _row(_operator("−", form="prefix"), f"<mn>{escape(text[1:])}</mn>")
    return f"<mn>{escape(text)}</mn>"


def _listed(parts: tuple[Term, ...], show: Show) -> str:
    return _row(_operator(",").join(show(p) for p in parts))


def _called(term: Term, show: Show) -> str:
    return _row(_below(f"<mi>{escape(term.text)}</mi>", term.axes), _fenced(_listed(term.parts, show)))


def _below(sign: str, axes: tuple[str, ...], large: bool = False) -> str:
    if not axes:
        return sign
    element = "munder" if large else "msub"
    return f"<{element}>{sign}{_word(axes_in_words(axes))}</{element}>"


def _sum(sign: str) -> str:
    return _operator(_LARGE.get(sign, sign), largeop="true", movablelimits="false")


def _over(term: Term, show: Show) -> str:
    if term.text in _LARGE:
        return _row(_below(_sum(term.text), term.axes, large=True), _fenced(_listed(term.parts, show)))
    return _called(term, show)


def _cases(term: Term, show: Show) -> str:
    pairs, otherwise = branches(term)
    rows = [(show(bare(value)), _row(_word("where "), show(condition))) for value, condition in pairs]
    rows.append((show(otherwise), _word("else")))
    table = "".join(f"<mtr><mtd>{value}</mtd><mtd>{condition}</mtd></mtr>" for value, condition in rows)
    return _row(_operator("{", fence="true", stretchy="true", form="prefix"), f'<mtable class="cases">{table}</mtable>')


def _index(term: Term, show: Show) -> str:
    return _row(show(term.parts[0]), _fenced(_listed(term.parts[1:], show), "[", "]"))


def _indexed(base: str, name: str, indices: str) -> str:
    if not indices:
        return base
    base = _fenced(base) if decomposed(name).index else base
    return f"<msub>{base}{_row(*(f'<mi>{letter}</mi>' for letter in indices))}</msub>"


def _raised(by: str) -> Spelling:
    return lambda term, show: f"<msup>{show(term.parts[0])}{by}</msup>"


MATHML: Mapping[str, Spelling] = {
    "name": lambda term, show: _name(term.text, term.text),
    "number": _number,
    "word": lambda term, show: _word(term.text) if term.text else "",
    "letter": lambda term, show: f"<mi>{escape(term.text)}</mi>",
    "gradient": _gradient,
    "towards": lambda term, show: _partial(Term("partial", (Term("letter", text="L"), *term.parts)), show),
    "via": lambda term, show: (
        f"<msub>{_row(show(term.parts[0]), _operator('|', stretchy='true', fence='true', form='postfix'))}"
        f"{show(term.parts[1])}</msub>"
    ),
    "partial": _partial,
    "equation": _infix("="),
    "add": _infix("+"),
    "sub": _infix("−"),
    "matmul": _infix("\N{INVISIBLE TIMES}", lspace="0.16em", rspace="0.16em"),
    "scale": _infix("\N{INVISIBLE TIMES}", lspace="0.16em", rspace="0.16em"),
    "dot": _infix("·"),
    "hadamard": _infix("⊙"),
    "div": lambda term, show: f"<mfrac>{_row(show(bare(term.parts[0])))}{_row(show(bare(term.parts[1])))}</mfrac>",
    "power": lambda term, show: f"<msup>{show(term.parts[0])}{show(bare(term.parts[1]))}</msup>",
    "neg": lambda term, show: _row(_operator("−", form="prefix"), show(term.parts[0])),
    "floor": lambda term, show: _fenced(show(term.parts[0]), "⌊", "⌋"),
    "abs": lambda term, show: _fenced(show(term.parts[0]), "|", "|"),
    "sqrt": lambda term, show: f"<msqrt>{show(bare(term.parts[0]))}</msqrt>",
    "compare": lambda term, show: _row(_operator(term.text).join(show(p) for p in term.parts)),
    "and": lambda term, show: _row(_word(" and ").join(show(p) for p in term.parts)),
    "or": lambda term, show: _row(_word(" or ").join(show(p) for p in term.parts)),
    "not": lambda term, show: _row(_word("not "), show(term.parts[0])),
    "transpose": _raised("<mo>⊤</mo>"),
    "adjoint": _raised("<mi>H</mi>"),
    "inverse": _raised("<mn>−1</mn>"),
    "cases": _cases,
    "indicator": lambda term, show: _fenced(show(term.parts[0]), "[", "]"),
    "parens": lambda term, show: _fenced(show(term.parts[0])),
    "index": _index,
    "slice": lambda term, show: _row(_operator(":").join(show(p) for p in term.parts)),
    "element": lambda term, show: _indexed(show(term.parts[0]), term.parts[0].text, term.text),
    "series": lambda term, show: _row(
        f"<munder>{_sum('Σ')}{_row(*(f'<mi>{letter}</mi>' for letter in term.text))}</munder>", show(term.parts[0])
    ),
    "size": lambda term, show: _row(_below("<mi>size</mi>", term.axes), _fenced(show(term.parts[0]))),
    "big": lambda term, show: _row(_below(_sum(term.text), term.axes, large=True), show(term.parts[0])),
    "over": _over,
    "call": _called,
    "keyword": lambda term, show: _row(f"<mi>{escape(term.text)}</mi>", _operator("="), show(term.parts[0])),
    "list": lambda term, show: _listed(term.parts, show),
    "tuple": lambda term, show: _fenced(_listed(term.parts, show)),
    "brackets": lambda term, show: _fenced(_listed(term.parts, show), "[", "]"),
}
