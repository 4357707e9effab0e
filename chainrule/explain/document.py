r"""An explanation as a LaTeX document that plain TeX Live compiles: article, amsmath, UTF-8.

A formula that is wider than the page is first broken at its equals sign, then at the signs of its sums; what is still
too wide is set smaller by `\chainruleformula`, which measures it.
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
from chainrule.show.mathematics import Term, latex, text
from chainrule.show.mathematics.latex import escaped

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation

WIDE = 60  # characters of a formula as text that one line holds
PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{textcomp}
\usepackage{amsmath,amssymb}
\usepackage{graphicx}
\usepackage[margin=2.5cm]{geometry}
\usepackage{longtable}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt plus 1pt}
\sloppy
\newsavebox{\chainrulebox}
\newlength{\chainrulewidth}
\setlength{\chainrulewidth}{\dimexpr\textwidth-1.5em\relax}
% A formula on a line of its own, smaller where it is wider than the page.
\newcommand{\chainruleformula}[1]{\sbox{\chainrulebox}{$\displaystyle #1$}\par\nopagebreak\vspace{3pt}\hspace*{1.5em}%
  \ifdim\wd\chainrulebox>\chainrulewidth\resizebox{\chainrulewidth}{!}{\usebox{\chainrulebox}}%
  \else\usebox{\chainrulebox}\fi\par\vspace{3pt}}
\newcommand{\chainrulecode}[1]{\par\pagebreak[2]\vspace{12pt plus 3pt}%
  {\raggedright\ttfamily\bfseries\hangindent=2em\hangafter=1 #1\par}\nopagebreak}
\newcommand{\chainruleshapes}[1]{{\raggedright\small\ttfamily #1\par}}
"""


def document(explanation: Explanation, title: str | None = None) -> str:
    """The whole document."""
    about = head(explanation, title)
    body = [r"\begin{document}", f"{{\\Large\\bfseries {escaped(about.title)}\\par}}\\bigskip"]
    body += [f"{escaped(name)}: {escaped(value)}\\par" for name, value in about.facts]
    body += [f"{escaped(said)}\\par" for said in (about.checked, *about.notes) if said]
    body += [r"\section*{Inputs}", *_inputs(explanation)]
    for phase in ("forward", "backward"):
        body += [f"\\section*{{{phase.capitalize()} pass}}", *passage(s for s in explanation if s.phase == phase)]
    return "\n".join([PREAMBLE, *body, r"\end{document}", ""])


def passage(steps: Iterable[Step]) -> Iterator[str]:
    """The lines with their formulas and derivations, as a part of a document with `PREAMBLE`."""
    for step in steps:
        yield f"\\chainrulecode{{{code(step.code)}}}"
        if step.formula is not None:
            yield formula(step.formula)
        yield f"\\chainruleshapes{{{code(step.shapes.replace('->', '→'))}}}"
        if step.reason:
            yield f"{prose(sentence(step.reason))}\\par"
        for paragraph in step.derivation:
            yield from _paragraph(paragraph)


def _inputs(explanation: Explanation) -> Iterator[str]:
    known = person_names(explanation.derivation.names)
    yield r"\begin{longtable}{@{}p{0.34\linewidth}p{0.2\linewidth}p{0.38\linewidth}@{}}"
    for step in explanation:
        if step.phase == "input":
            name = step.targets[0]
            called = f"\\texttt{{{code(name)}}}" + (f" ({code(known[name])})" if name in known else "")
            yield f"{called} & {escaped(step.shapes)} & {escaped(facts(step.value))} \\\\"
    yield r"\end{longtable}"


def _paragraph(paragraph: Paragraph) -> Iterator[str]:
    heading = f"\\textit{{{escaped(paragraph.title)}.}} " if paragraph.title else ""
    said = "".join(prose(p) if isinstance(p, str) else f"${latex(p)}$" for p in paragraph.pieces)
    yield f"{heading}{said}\\par"
    if paragraph.display is not None:
        yield formula(paragraph.display)


def prose(said: str) -> str:
    """Text; long names in it may be broken."""
    return escaped(said).replace(r"\_", r"\_\allowbreak{}")


def code(line: str) -> str:
    r"""Code for `\texttt`; it may be broken after signs, and where a name has a dot or an underscore.

    >>> print(code("w_1 = f(x)"))
    w\_\allowbreak{}1 = f(\allowbreak{}x)
    """
    return re.sub(r"(\\_|[.,(=\[])(?! )", r"\1\\allowbreak{}", escaped(line))


def formula(term: Term) -> str:
    """A formula in a display, on several lines where it is wide."""
    return f"\\chainruleformula{{{_rows(term)}}}"


def _rows(term: Term) -> str:
    if term.sign != "equation" or len(text(term)) <= WIDE:
        return latex(term)
    left, right = term.parts
    first, *rest = broken(right)
    rows = [f"{latex(left)} & = {first}", *(f"& \\quad {row}" for row in rest)]
    return "\\begin{aligned} " + r" \\ ".join(rows) + r" \end{aligned}"


_SIGNS = {"add": "+", "sub": "-", "hadamard": r"\odot", "dot": r"\cdot", "matmul": r"\,", "scale": r"\,"}


def broken(term: Term) -> list[str]:
    r"""A term in pieces, none of them wide where it has a sign to be broken at.

    >>> from chainrule.show.mathematics.term import add, name
    >>> broken(add(name("a"), name("b"))), len(broken(add(name("a" * 40), name("b" * 40))))
    (['a + b'], 2)
    """
    if len(text(term)) <= WIDE:
        return [latex(term)]
    if term.sign in _SIGNS:
        before, (first, *rest) = (broken(part) for part in term.parts)
        return [*before, f"{_SIGNS[term.sign]} {first}", *rest]
    if term.sign == "parens":
        inside = broken(term.parts[0])
        if len(inside) > 1:
            return [rf"\Bigl( {inside[0]}", *inside[1:-1], rf"{inside[-1]} \Bigr)"]
    return [latex(term)]
