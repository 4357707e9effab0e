"""Brings a derived backward pass to the form that an expert would have written."""

from __future__ import annotations

from chainrule.program import Program
from chainrule.simplify import conjugates  # noqa: F401  (adds its rows)
from chainrule.simplify.rewriter import Rewriter
from chainrule.simplify.rows import ROWS

_ENOUGH = 100  # sweeps: a pair of rows that undo each other must not hang anybody's program


def simplify(program: Program) -> None:
    """Rewrite the backward pass of `program` in place until no row applies."""
    rewriter = Rewriter(program, ROWS)
    for _ in range(_ENOUGH):
        if not rewriter.sweep():
            break
    rewriter.remove_dead()


__all__ = ["simplify"]
