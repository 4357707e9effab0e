"""The mathematics, the shapes and the reason of every step of a derivation."""

from chainrule.explain.explanation import Explanation
from chainrule.explain.step import Paragraph, Step

__all__ = ["Explanation", "Paragraph", "Step"]
