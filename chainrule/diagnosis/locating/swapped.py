"""Two values in the place of one another, which makes several gradients wrong: in what is saved, set or returned, or
taken by two calls of one method."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from chainrule.diagnosis import edits
from chainrule.diagnosis.locating.locate import Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case


def exchanges(case: Case, wrong: Sequence[Wrong]) -> Iterator[tuple[Edit, types.CodeType, str]]:
    """Edits that exchange two parts of one tuple, of those that the wrong gradients are computed from or returned in;
    of the tensors that are saved for them; and two calls of one method, which takes from a stack."""
    codes = {c.spot.code: c.spot for w in wrong if (c := w.claim).spot is not None}
    spots = [s for w in wrong for n in w.mine if (s := n.meta.get("spot")) is not None]
    lines = {(s.code, s.line): s for s in spots}
    two = len(wrong) == 2 and all(w.claim.explicit for w in wrong)  # which a `return` may give in the wrong order
    methods = {s.code.co_name for n in case.theirs if (s := n.meta.get("spot")) is not None}
    for code in dict.fromkeys(code for code, _ in lines):
        for one, other in pairwise(_statements(code)):
            if (called := _method(one)) is not None and called == _method(other) and called.split(".")[-1] in methods:
                edit = edits.exchanged(*(source.span_of(s, code.co_filename) for s in (one, other)))
                said = f"the calls of {called} are in the wrong order"
                yield from [(edit, code, said)] if edit is not None else []
    for code in dict.fromkeys([*codes, *(code for code, _ in lines)]):
        for statement in _statements(code):
            returned = two and isinstance(statement, ast.Return) and code in codes
            if returned or (code, statement.lineno) in lines:
                yield from ((edit, code, "") for edit in _edits(statement, code.co_filename))


def _statements(code: types.CodeType) -> list[ast.stmt]:
    """The simple statements of a function."""
    held = {line for _, _, line in code.co_lines() if line is not None}
    nodes = ast.walk(source.tree_of(code.co_filename))
    return [n for n in nodes if isinstance(n, ast.Assign | ast.Return | ast.Expr) and n.lineno in held]


def _method(statement: ast.stmt) -> str | None:
    """The method that a statement calls, with its object: `layer.backward`."""
    value = getattr(statement, "value", None)
    return ast.unparse(value.func) if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) else None


def _edits(statement: ast.stmt, file: str) -> Iterator[Edit]:
    value = getattr(statement, "value", None)
    saves = isinstance(value, ast.Call) and ast.unparse(value.func).endswith("save_for_backward")
    parts = value.args if saves else value.elts if isinstance(value, ast.Tuple) else []  # type: ignore[union-attr]
    for one, other in combinations(parts, 2):
        spans = [source.span_of(part, file) for part in (one, other)]
        texts = [source.text_at(span) for span in spans]
        if spans[0].line == spans[1].end_line and texts[0] != texts[1] and "None" not in texts:
            yield edits.replaced_several([(spans[0], texts[1]), (spans[1], texts[0])])
