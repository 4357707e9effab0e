"""Two values in the place of one another, which makes several gradients wrong: in what is saved, set or returned."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Sequence
from itertools import combinations

from chainrule.diagnosis.locating.locate import Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.report import Edit


def exchanges(wrong: Sequence[Wrong]) -> Iterator[tuple[Edit, types.CodeType]]:
    """Edits that exchange two parts of one tuple, of those that the wrong gradients are computed from or returned in;
    and of the tensors that are saved for them."""
    codes = {c.spot.code: c.spot for w in wrong if (c := w.claim).spot is not None}
    spots = [s for w in wrong for n in w.mine if (s := n.meta.get("spot")) is not None]
    lines = {(s.code, s.line): s for s in spots}
    two = len(wrong) == 2 and all(w.claim.explicit for w in wrong)  # which a `return` may give in the wrong order
    for code in dict.fromkeys([*codes, *(code for code, _ in lines)]):
        for statement in _statements(code):
            returned = two and isinstance(statement, ast.Return) and code in codes
            if returned or (code, statement.lineno) in lines:
                yield from ((edit, code) for edit in _edits(statement, code.co_filename))


def _statements(code: types.CodeType) -> list[ast.stmt]:
    """The simple statements of a function."""
    held = {line for _, _, line in code.co_lines() if line is not None}
    nodes = ast.walk(source.tree_of(code.co_filename))
    return [n for n in nodes if isinstance(n, ast.Assign | ast.Return | ast.Expr) and n.lineno in held]


def _edits(statement: ast.stmt, file: str) -> Iterator[Edit]:
    value = getattr(statement, "value", None)
    saves = isinstance(value, ast.Call) and ast.unparse(value.func).endswith("save_for_backward")
    parts = value.args if saves else value.elts if isinstance(value, ast.Tuple) else []  # type: ignore[union-attr]
    for one, other in combinations(parts, 2):
        spans = [source.span_of(part, file) for part in (one, other)]
        texts = [source.text_at(span) for span in spans]
        if spans[0].line == spans[1].end_line and texts[0] != texts[1] and "None" not in texts:
            yield source.replaced_several([(spans[0], texts[1]), (spans[1], texts[0])])
