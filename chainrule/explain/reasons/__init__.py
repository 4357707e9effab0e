"""Why each rule is what it is, one file a family of rules; what holds for all of them is in `generic`."""

from chainrule.explain.reasons import (  # noqa: F401  each enters its reasons in the book
    elementwise,
    layers,
    losses,
    moving,
    products,
    reductions,
    softmax,
)
from chainrule.explain.reasons.book import Reason, reason_of

__all__ = ["Reason", "reason_of"]
