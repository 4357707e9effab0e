"""Why the backward of a torch.autograd.Function returns None for an argument: where that stands in its source."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator

from chainrule.diagnosis import edits
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Span, Spot
from chainrule.diagnosis.report import Edit


def returned_none(code: types.CodeType, place: int) -> Span | None:
    """Where a function that returns one gradient for each argument says None for the one at `place`: in its return
    statement, or where the variable that stands there was last set to it."""
    function, file = function_of(code), code.co_filename
    part = _returned(function, place) if function is not None else None
    if part is None or function is None:
        return None
    if isinstance(part, ast.Constant):
        return source.span_of(part, file)
    sets = [n for n in ast.walk(function) if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)]
    named = [n for n in sets if isinstance(part, ast.Name) and any(ast.unparse(t) == part.id for t in n.targets)]
    return source.span_of(named[-1].value if named and len(named[-1].targets) == 1 else part, file)


def other_conditions(
    code: types.CodeType, place: int, argument: str, kept: dict[str, tuple[float, Spot]]
) -> Iterator[tuple[Edit, types.CodeType]]:
    """Edits of the condition under which the gradient at `place` is computed: another entry of `needs_input_grad`, or
    another flag that the forward keeps on `ctx`."""
    function, file = function_of(code), code.co_filename
    part = _returned(function, place) if function is not None else None
    if function is None or not isinstance(part, ast.Name):
        return
    for condition in _conditions(function, part.id):
        for node in ast.walk(condition):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("needs_input_grad"):
                if ast.unparse(node.slice) != str(place):
                    yield edits.replaced(source.span_of(node.slice, file), str(place)), code
            elif isinstance(node, ast.Attribute) and node.attr in kept:
                spot = kept[node.attr][1]
                assigned = source.assignment_at(spot.span) if spot.span is not None else None
                if assigned is not None:
                    yield edits.replaced(assigned.value, f"{argument} is not None"), spot.code


def _conditions(function: ast.FunctionDef, name: str) -> Iterator[ast.expr]:
    """The tests of the branches in which a variable is set, and what the flags in those were set to."""
    sets = [n for n in ast.walk(function) if isinstance(n, ast.Assign)]
    for branch in (n for n in ast.walk(function) if isinstance(n, ast.If)):
        inside = [n for n in sets if any(n is held for body in branch.body for held in ast.walk(body))]
        if any(ast.unparse(t) == name for n in inside for t in n.targets):
            yield branch.test
            flags = {n.id for n in ast.walk(branch.test) if isinstance(n, ast.Name)}
            yield from (n.value for n in sets if any(ast.unparse(t) in flags for t in n.targets))


def _returned(function: ast.FunctionDef, place: int) -> ast.expr | None:
    """What the last return statement says for one argument."""
    returns = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None]
    if not returns:
        return None
    parts = returns[-1].elts if isinstance(returns[-1], ast.Tuple) else [returns[-1]]
    return parts[place] if place < len(parts) else parts[-1]


def function_of(code: types.CodeType) -> ast.FunctionDef | None:
    for function in ast.walk(source.tree_of(code.co_filename)):
        if isinstance(function, ast.FunctionDef) and function.name == code.co_name:
            first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
            if first == code.co_firstlineno:
                return function
    return None
