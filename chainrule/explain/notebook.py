"""An explanation, or one line of it, as a notebook shows it: in each format that a front end may choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.explain.markdown import lines, mathematics
from chainrule.explain.page import cell

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation


def bundle(explanation: Explanation) -> dict[str, str]:
    """The explanation by MIME type."""
    return {
        "text/html": cell(explanation),
        "text/markdown": lines(s for s in explanation if s.formula is not None),
        "text/latex": gathered(explanation),
        "text/plain": str(explanation),
    }


def gathered(explanation: Explanation) -> str:
    """The formulas alone, for a front end that shows mathematics and no HTML."""
    rows = [mathematics(s.formula) for s in explanation if s.formula is not None]
    return "$$\\begin{gathered} " + r" \\ ".join(rows) + r" \end{gathered}$$"
