r"""An explanation as Markdown for Quarto, Jupyter Book and GitHub.

GitHub reads Markdown before mathematics and allows fewer commands than MathJax has, so formulas are written with those
that mean the same everywhere: `_ {1}` is no emphasis, `\cr` and `\thinspace` lose no backslash, `\mathrm` is allowed, and
`\_{}` stays without an error where its backslash is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from chainrule.explain.head import head
from chainrule.explain.names import person_names
from chainrule.explain.prose import sentence
from chainrule.explain.step import Paragraph, Step
from chainrule.explain.values import facts
from chainrule.show.mathematics import Term, latex

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation

_SAFE = {
    r"\,": r"\thinspace ", r"\!": "", r"\\": r"\cr ", r"\operatorname": r"\mathrm", r"\_": r"\_{}",
    r"\textless{}": "< ", r"\textgreater{}": ">", r"\textquotedbl{}": '"', r"\textasciigrave{}": "'",
}  # fmt: skip
_UNSAFE = re.compile("|".join(map(re.escape, _SAFE)))
_WORD = re.compile(r"\\text\{((?:[A-Za-z0-9]|\\_)+)\}")  # MathJax shows the backslash of \_ inside \text
_MARKS = re.compile(r"([\\`*_{}\[\]<>()#|$~!])")


def markdown(explanation: Explanation, title: str | None = None) -> str:
    """The whole document."""
    return "\n".join(_document(explanation, title)).strip() + "\n"


def lines(steps: Iterable[Step]) -> str:
    """The lines alone, each with its derivation."""
    return "\n".join(line for step in steps for line in _step(step)).strip() + "\n"


def _document(explanation: Explanation, title: str | None) -> Iterator[str]:
    about = head(explanation, title)
    yield from (f"# {escaped(about.title)}", "")
    yield from (f"- {name}: {escaped(value)}" for name, value in about.facts)
    yield from (f"- {escaped(note)}" for note in about.notes)
    yield from ("", escaped(about.checked), "", "## Inputs", "")
    known = person_names(explanation.derivation.names)
    yield from ("| Name | Shape | Values |", "| --- | --- | --- |")
    for step in explanation:
        if step.phase == "input":
            name = step.targets[0]
            called = f"`{name}`" + (f" ({escaped(known[name])})" if name in known else "")
            yield f"| {called} | {step.shapes} | {facts(step.value)} |"
    for phase in ("forward", "backward"):
        yield from ("", f"## {phase.capitalize()} pass", "")
        for step in explanation:
            if step.phase == phase:
                yield from _step(step)


def _step(step: Step) -> Iterator[str]:
    yield from ("```python", step.code, "```", "")
    if step.formula is not None:
        yield from (*_display(step.formula), "")
    yield f"`{step.shapes.replace('->', '→')}`" + (f" {escaped(sentence(step.reason))}" if step.reason else "")
    yield ""
    if step.derivation:
        yield from ("<details>", "<summary>Derivation</summary>", "")
        for paragraph in step.derivation:
            yield from _paragraph(paragraph)
        yield from ("</details>", "")


def _paragraph(paragraph: Paragraph) -> Iterator[str]:
    heading = f"**{escaped(paragraph.title)}.** " if paragraph.title else ""
    yield from (heading + spaced(paragraph.pieces), "")
    if paragraph.display is not None:
        yield from (*_display(paragraph.display), "")


def spaced(pieces: Iterable[str | Term]) -> str:
    """Prose and formulas in one line; where a formula touches a letter or a digit, GitHub takes it for none.

    >>> from chainrule.show.mathematics.term import name
    >>> spaced(["of", name("x"), "s, ", name("y"), "."])
    'of $x$ s, $y$.'
    """
    line, after_formula = "", False
    for piece in pieces:
        formula = isinstance(piece, Term)
        said = _inline(piece) if isinstance(piece, Term) else escaped(piece)
        before = formula and line and not (line[-1].isspace() or line[-1] in "([")
        after = after_formula and (said[:1].isalnum() or said[:1] in ("$", "_", "\\"))
        line += f" {said}" if before or after else said
        after_formula = formula if said else after_formula
    return line.strip()


def _display(term: Term) -> list[str]:
    return ["$$", mathematics(term), "$$"]


def _inline(term: Term) -> str:
    return f"${mathematics(term)}$"


def mathematics(term: Term) -> str:
    r"""LaTeX that GitHub, Quarto and Jupyter Book read alike.

    >>> from chainrule.show.mathematics.term import call, matmul, name
    >>> print(mathematics(matmul(name("w1"), call("size", name("x")))))
    w_ {1} \thinspace \mathrm{size}\left(x\right)
    """
    text = _WORD.sub(r"\\mathit{\1}", latex(term))
    text = _UNSAFE.sub(lambda m: _SAFE[m[0]], re.sub(r"(?<!\\)_\{", "_ {", text))
    return re.sub(r" {2,}", " ", text).strip()


def escaped(text: str) -> str:
    r"""`text` with the signs that Markdown reads.

    >>> print(escaped("w_1 * a<b"))
    w\_1 \* a\<b
    """
    return _MARKS.sub(r"\\\1", text)
