"""Code, formulas and prose of an explanation as HTML; each name carries `data-name`, as it does in MathML."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape

from chainrule.explain.names import pieces
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics import Term, mathml


def code(text: str, names: Collection[str]) -> str:
    """A line of code with its names marked.

    >>> code("y = x < 2", {"x"})
    '<code>y = <span data-name="x">x</span> &lt; 2</code>'
    """
    marked = (
        f'<span data-name="{escape(name)}">{escape(piece)}</span>' if name else escape(piece)
        for piece, name in pieces(text, names)
    )
    return f"<code>{''.join(marked)}</code>"


def formula(term: Term) -> str:
    """A formula on a line of its own, in a box that scrolls where it is too wide."""
    return f'<div class="formula">{mathml(term, display=True)}</div>'


def paragraph(said: Paragraph, heading: str = "h4") -> str:
    """Prose with its mathematics, and the formula below it."""
    prose = "".join(escape(p) if isinstance(p, str) else mathml(p) for p in said.pieces).strip()
    parts = [f"<{heading}>{escape(said.title)}</{heading}>"] if said.title else []
    parts += [f"<p>{prose}</p>"] if prose else []
    parts += [formula(said.display)] if said.display is not None else []
    return "".join(parts)


def shapes(text: str) -> str:
    """Shapes as they meet, with an arrow before the result."""
    return f'<span class="shapes">{escape(text.replace("->", "→"))}</span>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """A table of cells that are HTML already; the first cell of a row names it."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        "<tr>"
        + "".join(f'<th scope="row">{c}</th>' if i == 0 else f"<td>{c}</td>" for i, c in enumerate(row))
        + "</tr>"
        for row in rows
    )
    mark = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{mark}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
