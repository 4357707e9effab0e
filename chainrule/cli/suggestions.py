"""The `--input` options that an error suggests: tried on the code first, so that they work."""

from __future__ import annotations

import ast
import contextlib
import io
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from chainrule.arrays.code import is_numpy_code, reached
from chainrule.arrays.values import as_tensors
from chainrule.diagnosis.reading.returns import function_of
from chainrule.recording.names import is_person

_SHAPES = [  # of the arguments that are no labels, in order
    ["64,784"],
    ["5,4", "4,3", "3"],
    ["5,4", "4,3", "3", "5,3"],
    ["5,4", "5,3", "4,3", "3"],
    ["5,4", "4,3", "3", "3,2", "2", "5,2"],
    ["2,3,8"],
    ["2,3,8,8"],
]


def suggested(called: Any, missing: Sequence[str], made: Mapping[str, Any], read: Callable[[str], Any]) -> str:
    """Options that give `called` its missing inputs beside those in `made`: the first ones with which it runs, else a form in
    which the shapes are to be filled in. `read` makes an input of `NAME=KIND:SHAPE`."""
    labels = _indices(called) & set(missing)
    for texts in _options(called, missing, labels):
        if _runs(called, {**made, **{n: read(f"{n}={text}") for n, text in texts.items()}}):
            return " ".join(f"--input {n}={text}" for n, text in texts.items())
    forms = " ".join(f"--input {n}={'randint:CLASSES:SHAPE' if n in labels else 'randn:SHAPE'}" for n in missing)
    return f"{forms}, where a SHAPE is written as 64,784"


def _options(called: Any, missing: Sequence[str], labels: set[str]) -> Iterator[dict[str, str]]:
    real = [n for n in missing if n not in labels]
    widths = [[f"5,{size}"] for size in _sizes(getattr(called, "__self__", called))] if len(real) == 1 else []
    for shapes in [*_SHAPES[:1], *widths, *_SHAPES[1:]]:
        if len(shapes) > 1 and (len(real) > len(shapes) or len(real) < 2):
            continue
        shapes = shapes * len(real) if len(shapes) == 1 else shapes
        axes = shapes[0].split(",") if real else ["5"]
        for rows in [axes[:1], axes[:2]] if labels else [[]]:  # a label for each row, or for each place in it
            given = dict(zip(real, (f"randn:{s}" for s in shapes), strict=False))
            yield {n: f"randint:2:{','.join(rows)}" if n in labels else given[n] for n in missing}


def _sizes(owner: Any) -> list[int]:
    """The sizes of the axes of what an object holds, or what the objects in it hold: one is the width of its input."""
    found: dict[int, None] = {}
    stack: list[Any] = [owner]
    seen: set[int] = set()
    while stack and len(seen) < 100:
        item = as_tensors(stack.pop(0))
        if isinstance(item, torch.Tensor):
            found |= dict.fromkeys(item.shape)
        elif id(item) not in seen and not isinstance(item, type | types.ModuleType | types.FunctionType):
            seen.add(id(item))
            values = item if isinstance(item, list | tuple | dict) else _attributes(item)
            stack += values.values() if isinstance(values, dict) else values
    return list(found)[:8]


def _attributes(item: Any) -> dict[str, Any]:
    space = getattr(item, "__dict__", None)
    return space if isinstance(space, dict) else {}


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


def _runs(called: Any, given: Mapping[str, Any]) -> bool:
    """Whether the code runs with these inputs; what it prints is dropped."""
    if is_numpy_code(called, ()):
        given = {n: v.numpy() if isinstance(v, torch.Tensor) else v for n, v in given.items()}
        given = {n: v.astype(float) if getattr(v, "dtype", None) == "float32" else v for n, v in given.items()}
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            called(**given)
    except KeyboardInterrupt:
        raise
    except BaseException:  # of their own code: exit() too
        return False
    return True
