"""Programs as mathematics: read from the same nodes as the code, printed as plain text, LaTeX and MathML."""

from chainrule.show.mathematics.latex import latex
from chainrule.show.mathematics.mathml import mathml
from chainrule.show.mathematics.reader import Reader
from chainrule.show.mathematics.term import Term
from chainrule.show.mathematics.text import text

__all__ = ["Reader", "Term", "latex", "mathml", "text"]
