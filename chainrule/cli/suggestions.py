"""The `--input` options that an error suggests."""

from __future__ import annotations

import ast
import types
from collections.abc import Sequence
from typing import Any

from chainrule.arrays.code import reached
from chainrule.diagnosis.reading.returns import function_of
from chainrule.recording.names import is_person


def suggested(called: Any, missing: Sequence[str]) -> str:
    """The form of the options that give `called` its missing inputs, in which the shapes are to be filled in; what it
    indexes with are whole numbers. The code is not run."""
    labels = _indices(called) & set(missing)
    forms = " ".join(f"--input {n}={'randint:CLASSES:SHAPE' if n in labels else 'randn:SHAPE'}" for n in missing)
    return f"{forms}, where a SHAPE is written as 64,784"


def _indices(called: Any) -> set[str]:
    """The names that the code indexes with, which are whole numbers: `p[np.arange(n), y]`."""
    found: set[str] = set()
    for item in reached(called):
        function = function_of(item.__code__) if type(item) is types.FunctionType and is_person(item.__code__) else None
        for node in ast.walk(function) if function is not None else ():
            if isinstance(node, ast.Subscript):
                parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
                found |= {
                    ast.unparse(p).removeprefix("self.") for p in parts if isinstance(p, ast.Name | ast.Attribute)
                }
            elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in _TAKING_LABELS:
                found |= {a.id for a in node.args[:2] if isinstance(a, ast.Name)}
    return found


_TAKING_LABELS = frozenset(("one_hot", "embedding", "cross_entropy", "nll_loss", "bincount"))
