"""Values that were changed in place while gradients still needed them: the statements, without writing."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Iterator

from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import span_of
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case
from chainrule.recording.names import is_person


def without_writing(case: Case) -> Iterator[tuple[Edit, types.CodeType]]:
    """Edits that make new values in the place of all in-place methods of one statement: `out.sub(y)` for `out.sub_(y)`.
    A statement that does nothing else is left out."""
    statements: dict[tuple[types.CodeType, int], set[str]] = {}
    alone: dict[int, Edit] = {}
    for node in case.graph.nodes:
        spot, name = node.meta.get("spot"), str(node.meta.get("written") or "")
        if spot is not None and name.endswith("_") and not _is_update(node) and is_person(spot.code):
            held = span_of(node)
            statement = source.statement_at(held) if held is not None else None
            if statement is not None:
                statements.setdefault((spot.code, statement.lineno), set()).add(name)
                if isinstance(statement, ast.Expr) and held == source.span_of(statement, held.file):  # type: ignore[union-attr]
                    alone[statement.lineno] = edits.deleted(held)
    for (code, line), names in statements.items():
        text = source.lines_of(code.co_filename)[line - 1]
        without = re.sub(rf"\.({'|'.join(n.rstrip('_') for n in names)})_\(", r".\1(", text)
        if without != text and line in alone:
            yield alone[line], code
        elif without != text:
            yield Edit(code.co_filename, line, line, (without,)), code


def _is_update(node: fx.Node) -> bool:
    """Whether what is written to is an input: a parameter that takes a step."""
    while node.meta.get("written") or node.meta["operation"] in ("data", "detach"):
        if not node.args or not isinstance(node.args[0], fx.Node):
            return False
        node = node.args[0]
    return node.op == "placeholder"
