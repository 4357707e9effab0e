"""Why each rule is what it is, one file a family of rules; what holds for all of them is in `generic`."""

from chainrule.explain.reasons.book import Reason, reason, reason_of

__all__ = ["Reason", "reason", "reason_of"]
