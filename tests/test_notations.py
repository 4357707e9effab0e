"""Every sign in every notation, written out and looked at: a sign that is spelled wrongly in one table is seen here."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from chainrule.show.mathematics import Term, latex, mathml, text
from chainrule.show.mathematics.latex import LATEX
from chainrule.show.mathematics.mathml import MATHML
from chainrule.show.mathematics.term import (
    add,
    call,
    cases,
    compare,
    element,
    equation,
    fraction,
    gradient,
    hadamard,
    indicator,
    letter,
    matmul,
    name,
    number,
    parens,
    partial,
    power,
    root,
    scale,
    sub,
    summed,
    towards,
    transposed,
    via,
    word,
)  # fmt: skip
from chainrule.show.mathematics.text import TEXT

a, b, c = name("a"), name("b"), name("c")

# the term; as text; in LaTeX; in MathML, the outermost element and what stands in it
EXAMPLES: dict[str, tuple[Term, str, str, str]] = {
    "name": (name("w1"), "w1", "w_{1}", "msub: w1"),
    "number": (number(2), "2", "2", "mn: 2"),
    "word": (word("mean"), "mean", "\\text{mean}", "mtext: mean"),
    "letter": (letter("k"), "k", "k", "mi: k"),
    "gradient": (gradient("a"), "∂L/∂a", "\\frac{\\partial L}{\\partial a}", "mfrac: ∂L∂a"),
    "towards": (towards(a), "∂L/∂a", "\\frac{\\partial L}{\\partial a}", "mfrac: ∂L∂a"),
    "via": (via(gradient("a"), b), "∂L/∂a|b", "\\left.\\frac{\\partial L}{\\partial a}\\right|_{b}", "msub: ∂L∂a|b"),
    "partial": (partial(b, a), "∂b/∂a", "\\frac{\\partial b}{\\partial a}", "mfrac: ∂b∂a"),
    "equation": (equation(a, b), "a = b", "a = b", "mrow: a=b"),
    "add": (add(a, b), "a + b", "a + b", "mrow: a+b"),
    "sub": (sub(a, b), "a − b", "a - b", "mrow: a−b"),
    "matmul": (matmul(a, b), "a b", "a \\, b", "mrow: a\u2062b"),
    "scale": (scale(number(2), a), "2 a", "2 \\, a", "mrow: 2\u2062a"),
    "dot": (Term("dot", (a, b)), "a · b", "a \\cdot b", "mrow: a·b"),
    "hadamard": (hadamard(a, b), "a ⊙ b", "a \\odot b", "mrow: a⊙b"),
    "div": (fraction(a, b), "a / b", "\\frac{a}{b}", "mfrac: ab"),
    "power": (power(a, number(2)), "a²", "{a}^{2}", "msup: a2"),
    "neg": (Term("neg", (a,)), "−a", "-a", "mrow: −a"),
    "floor": (Term("floor", (a,)), "⌊a⌋", "\\left\\lfloor a \\right\\rfloor", "mrow: ⌊a⌋"),
    "abs": (Term("abs", (a,)), "|a|", "\\left|a\\right|", "mrow: |a|"),
    "sqrt": (root(a), "√a", "\\sqrt{a}", "msqrt: a"),
    "compare": (compare(a, "≥", b), "a ≥ b", "a \\ge b", "mrow: a≥b"),
    "and": (Term("and", (a, b)), "a and b", "a \\text{ and } b", "mrow: a and b"),
    "or": (Term("or", (a, b)), "a or b", "a \\text{ or } b", "mrow: a or b"),
    "not": (Term("not", (a,)), "not a", "\\text{not } a", "mrow: not a"),
    "transpose": (transposed(a), "aᵀ", "{a}^{\\top}", "msup: a⊤"),
    "adjoint": (Term("adjoint", (a,)), "aᴴ", "{a}^{H}", "msup: aH"),
    "inverse": (Term("inverse", (a,)), "a⁻¹", "{a}^{-1}", "msup: a−1"),
    "cases": (
        cases(a, b, c),
        "a where b, else c",
        "\\begin{cases} a & \\text{where } b \\\\ c & \\text{else} \\end{cases}",
        "mrow: {awhere bcelse",
    ),
    "indicator": (indicator(a), "[a]", "\\left[a\\right]", "mrow: [a]"),
    "parens": (parens(a), "(a)", "\\left(a\\right)", "mrow: (a)"),
    "index": (Term("index", (a, number(0))), "a[0]", "a\\left[0\\right]", "mrow: a[0]"),
    "slice": (Term("slice", (number(1), number(3))), "1:3", "1:3", "mrow: 1:3"),
    "element": (element(a, "ij"), "a[i, j]", "a_{ij}", "msub: aij"),
    "series": (summed("j", a), "Σ_j a", "\\sum_{j} a", "mrow: ∑ja"),
    "size": (
        Term("size", (a,), axes=("0",)),
        "size₀(a)",
        "\\operatorname{size}_{\\text{axis 0}}\\left(a\\right)",
        "mrow: sizeaxis 0(a)",
    ),
    "big": (Term("big", (a,), "Σ", ("0",)), "Σ₀ a", "\\sum_{\\text{axis 0}} a", "mrow: ∑axis 0a"),
    "over": (
        Term("over", (a,), "mean", ("1",)),
        "mean₁(a)",
        "\\operatorname{mean}_{\\text{axis 1}}\\left(a\\right)",
        "mrow: meanaxis 1(a)",
    ),
    "call": (call("exp", a), "exp(a)", "\\exp\\left(a\\right)", "mrow: exp(a)"),
    "keyword": (Term("keyword", (a,), "out"), "out=a", "\\mathrm{out}\\!=\\!a", "mrow: out=a"),
    "list": (Term("list", (a, b)), "a, b", "a, b", "mrow: a,b"),
    "tuple": (Term("tuple", (a, b)), "(a, b)", "\\left(a, b\\right)", "mrow: (a,b)"),
    "brackets": (Term("brackets", (a, b)), "[a, b]", "\\left[a, b\\right]", "mrow: [a,b]"),
}


@pytest.mark.parametrize("sign", EXAMPLES)
def test_a_sign_in_each_notation(sign: str) -> None:
    term, plain, in_latex, in_mathml = EXAMPLES[sign]
    (drawn,) = ElementTree.fromstring(mathml(term))
    assert [text(term), latex(term), f"{drawn.tag}: {''.join(drawn.itertext())}"] == [plain, in_latex, in_mathml]


def test_every_notation_spells_every_sign() -> None:
    assert set(TEXT) == set(LATEX) == set(MATHML) == set(EXAMPLES)
