"""Comments for emitted code: the shapes of each line, its mathematics, or why it is what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import fx

from chainrule.errors import ChainruleError
from chainrule.explain.shapes import shape_of
from chainrule.show.layout import Layout, Line
from chainrule.show.mathematics import Reader, text

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

KINDS = ("shapes", "math", "why")


def commenter(d: Derivation, kind: str) -> Callable[[Layout, Line], str]:
    """What is said beside a line: "shapes", "math" or "why"."""
    if kind not in KINDS:
        raise ChainruleError(f'no comments are called {kind!r}; there are "shapes", "math" and "why"')
    write = {"shapes": _shapes, "math": _formula}.get(kind)
    if write is None:
        from chainrule.explain.explainer import sentences

        said = sentences(d)
        write = lambda layout, line: _reason(said, line)  # noqa: E731
    return lambda layout, line: write(layout, line) if line.target and line.phase in ("forward", "backward") else ""


def _shapes(layout: Layout, line: Line) -> str:
    return shape_of(line.node.meta["val"])


def _formula(layout: Layout, line: Line) -> str:
    reader = Reader(layout.python.variable, layout.program.upstream)
    return text(reader.line(line.target, line.node, line.alias))


def _reason(said: dict[fx.Node, str], line: Line) -> str:
    return said.get(line.of.meta["base"], "") if line.of is not None else ""
