"""A call of the person's own function that is given something else than it should be: the cache of another call, or another
axis."""

from __future__ import annotations

import ast
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.locating.locate import Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case

_AXES = (0, 1, -1, 2)
_HEAD = re.compile(r"[^\W\d]\w*(\.\w+)?")
_Named = Mapping[str, Any]
_Kind = dict[str, object]  # what a name holds: by where it stands there, its shape or its type


def other_arguments(case: Case, wrong: Sequence[Wrong]) -> Iterator[tuple[Edit, types.CodeType, str]]:
    """Edits of one argument in a call that wrong gradients are computed by, with the cause: a name that holds the like,
    those first that are read nowhere else, or another axis; the other sign; a term that is lost."""
    calls = list(_calls(case, wrong))
    for way in (_another, _opposite, _with_a_term):
        for call, names in calls:
            held = source.call_at(call.span)
            for argument in [*held.args, *(k.value for k in held.keywords)] if held is not None else ():
                for text, cause in way(argument, names, call.code):
                    yield edits.replaced(source.span_of(argument, call.file), text), call.code, cause


def _another(argument: ast.expr, names: _Named, code: types.CodeType) -> Iterator[tuple[str, str]]:
    if isinstance(argument, ast.Constant) and type(argument.value) is int:
        yield from ((str(axis), "wrong-axis") for axis in _AXES if axis != argument.value)
    elif isinstance(argument, ast.Name | ast.Attribute):
        yield from ((text, "wrong-tensor") for text in _alike(ast.unparse(argument), names, code))


def _opposite(argument: ast.expr, names: _Named, code: types.CodeType) -> Iterator[tuple[str, str]]:
    if isinstance(argument, ast.UnaryOp) and isinstance(argument.op, ast.USub):
        yield ast.unparse(argument.operand), "sign"
    elif isinstance(argument, ast.Name) and _is_tensor(argument.id, names):
        yield f"-{argument.id}", "sign"


def _with_a_term(argument: ast.expr, names: _Named, code: types.CodeType) -> Iterator[tuple[str, str]]:
    if isinstance(argument, ast.Name) and _is_tensor(argument.id, names):
        for other in _alike(argument.id, names, code):
            yield from ((f"{argument.id} {sign} {other}", "lost-path") for sign in "+-")


def _calls(case: Case, wrong: Sequence[Wrong]) -> Iterator[tuple[Spot, _Named]]:
    """The calls on the way to wrong gradients, each with the names that stand where it is made."""
    names: dict[types.CodeType, _Named] = {}
    for node in case.theirs:
        if (spot := node.meta.get("spot")) is not None:
            names[spot.code] = spot.names  # those of its last line
    read = [n for w in wrong for n in w.mine]
    calls = (s.called_from for n in read if (s := n.meta.get("spot")) is not None)
    for call in {(c.code, c.index): c for c in calls if c is not None and c.code in names}.values():
        yield call, names[call.code]


def _alike(text: str, names: _Named, code: types.CodeType) -> list[str]:
    """The names that hold what a text could stand for: as many tensors, of the same shapes."""
    heads = dict.fromkeys(h for key in names if (m := _HEAD.match(key)) for h in (m[0].split(".")[0], m[0]))
    wanted = _kind(text, names)
    read = Counter(ast.unparse(n) for n in ast.walk(function_of(code) or ast.Module([], [])) if _is_read(n))
    found = [head for head in heads if head != text and wanted and _kind(head, names) == wanted]
    return sorted(found, key=lambda head: read[head])


def _kind(head: str, names: _Named) -> _Kind:
    parts = {key[len(head) :]: held for key, held in names.items() if key.startswith(head)}
    return {part: _shape(held) for part, held in parts.items() if part[:1] in ("", ".", "[")}


def _shape(held: Any) -> object:
    value = held.meta.get("val") if isinstance(held, fx.Node) else held
    return value.shape if isinstance(value, torch.Tensor) else type(value)


def _is_tensor(name: str, names: _Named) -> bool:
    return isinstance(_shape(names.get(name)), torch.Size)


def _is_read(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
