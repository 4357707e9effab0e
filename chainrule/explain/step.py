"""What an explanation is made of: steps, each a line of code with its mathematics, and paragraphs of prose."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

import torch

from chainrule.show.mathematics import Term, latex, mathml, text


@dataclass(frozen=True)
class Paragraph:
    """Prose with mathematics in it, under a heading of its own where it has a `title`.

    Strings in `pieces` are prose, terms are mathematics inside the line; `display` sets a term below the prose.
    """

    pieces: tuple[str | Term, ...]
    title: str = ""
    display: Term | None = None

    @property
    def names(self) -> list[str]:
        """The names in its mathematics, as the code writes them."""
        terms = [p for p in self.pieces if isinstance(p, Term)] + ([self.display] if self.display else [])
        return [name for term in terms for name in term.names]

    def __str__(self) -> str:
        said = "".join(p if isinstance(p, str) else text(p) for p in self.pieces)
        prose = textwrap.fill(f"{self.title}: {said}" if self.title else said, 100)
        return f"{prose}\n    {text(self.display)}" if self.display else prose


@dataclass(frozen=True, repr=False)
class Step:
    """One line of the program: an input, a forward step, or a line of the backward pass."""

    key: str  # unique among the steps: "forward-l1", "backward-w1.g"
    phase: str  # "input", "forward" or "backward"
    targets: tuple[str, ...]  # the names that it gives values to: ("l1",), ("w1.g",)
    code: str
    formula: Term | None  # None for an input
    shapes: str  # as they meet: "(4, 100) @ (100, 2) -> (4, 2)"
    value: torch.Tensor
    reads: tuple[str, ...] = ()  # names of the values in the line
    partners: tuple[str, ...] = ()  # keys of the lines in the other pass that belong to it
    derivation: tuple[Paragraph, ...] = ()
    reason: str = ""  # one sentence: why the line is what it is
    file: str = ""  # the person's file and line, for forward steps
    line: int | None = None
    used_by: tuple[str, ...] = field(default=())  # keys of the lines that read what it gives

    @property
    def latex(self) -> str:
        r"""The formula for LaTeX's math mode; "" for an input."""
        return latex(self.formula) if self.formula is not None else ""

    @property
    def mathml(self) -> str:
        """The formula as a `<math>` element; "" for an input."""
        return mathml(self.formula) if self.formula is not None else ""

    def __str__(self) -> str:
        """The line, its formula, shapes and reason, and its whole derivation."""
        formula = [text(self.formula)] if self.formula is not None else []
        head = [self.code, *(f"    {line}" for line in [*formula, self.shapes, self.reason] if line)]
        return "\n".join([*head, *([""] if self.derivation else []), *map(str, self.derivation)])

    def _repr_html_(self) -> str:
        from chainrule.explain.page.cell import cell_of

        return cell_of(self)

    def __repr__(self) -> str:
        return f"<Step {self.code}>"
