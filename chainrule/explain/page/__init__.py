"""An explanation as one HTML file, and as the output of a notebook cell."""

from chainrule.explain.page.cell import cell
from chainrule.explain.page.html import page

__all__ = ["cell", "page"]
