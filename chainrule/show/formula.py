"""The backward pass as mathematics in plain text: ∂L/∂a = ∂L/∂out bᵀ.

Matrix products stand side by side, elementwise ones have ⊙ between them. Sums, means and the like carry the axes
that they go over as a subscript; what mathematics has no sign for is written as a call.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from torch import fx

from chainrule.program import Program
from chainrule.show.layout import Layout, Line
from chainrule.show.mathematics import Reader, text
from chainrule.show.mathematics.term import gradient
from chainrule.show.python import Python, Spelled

WIDTH = 110


def formula(program: Program) -> list[str]:
    """The backward lines of `program` in mathematical notation.

    >>> import torch
    >>> import chainrule as cr
    >>> def forward(a, b): return a @ b
    >>> d = cr.derive(forward, torch.ones(2, 3), torch.ones(3, 4), upstream=torch.ones(2, 4))
    >>> formula(d.program)
    ['∂L/∂a = ∂L/∂out bᵀ', '∂L/∂b = aᵀ ∂L/∂out']
    """
    speller = functools.partial(Notation, upstream=program.upstream)
    layout = Layout(program, dotted=True, upstream_of_output=True, width=WIDTH, speller=speller)
    if program.output.op == "placeholder":  # the operation gave its argument back
        return [f"{text(gradient(layout.variables[program.output]))} = ∂L/∂out"]
    reader = Reader(layout.python.variable, program.upstream)
    backward = [_line(reader, line) for line in layout.part("backward")]
    made, read = [], _words(backward)
    for line in reversed(layout.part("forward")):
        if line.target != layout.variables[program.output] and read & set(line.target.split(", ")):
            made.append(_line(reader, line))
            read |= _words(made[-1:])
    return made[::-1] + backward


def _words(lines: list[str]) -> set[str]:
    return set(re.findall(r"\w+", " ".join(lines)))


def _line(reader: Reader, line: Line) -> str:
    return text(reader.line(line.target, line.node, line.alias))


class Notation(Python):
    """Spells nodes as mathematics, with the interface of `Python`: lines are broken by the width of the formulas."""

    def __init__(self, variable: Callable[[fx.Node], str | None], upstream: fx.Node | None) -> None:
        super().__init__(variable)
        self.reader = Reader(variable, upstream)

    def expression(self, node: fx.Node) -> Spelled:
        read = self.reader.expression(node)
        return text(read), read.binding
