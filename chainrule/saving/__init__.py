"""What a backward pass keeps of its forward pass: the fewest bytes from which all that it reads can be had."""

from __future__ import annotations

from chainrule.program import Program
from chainrule.saving.rewriting import Rewriting


def keep_less(program: Program) -> None:
    """Rewrite `program`, in place, so that its backward pass reads as few bytes of the forward pass as it can.

    The values that it keeps have `kept` in their meta; one that it makes again says in `again` which it is.
    """
    Rewriting(program).rewrite()


__all__ = ["keep_less"]
