"""What a forward function keeps for its backward function: each value under a node of its own, as a mistake may stand
there."""

from __future__ import annotations

import ast
import dis
import inspect
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from chainrule.diagnosis.reading.aliases import alias_at
from chainrule.diagnosis.reading.arguments import is_cache, names_returned
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.source import span_of
from chainrule.diagnosis.reading.spots import Spot
from chainrule.recording import Recorder


def place_of(forward: Any, outs: tuple[Any, ...], outputs: int) -> int | slice:
    """Where a cache stands in what a forward pass returned, behind its `outputs`: what is called so, or alone holds others,
    or all that is there.

    >>> place_of(place_of, (1, 2), 1), place_of(place_of, (1, 2, 3), 1), place_of(place_of, (1, 2, (3, 4)), 1)
    (1, slice(1, None, None), 2)
    """
    names = names_returned(forward) if len(outs) > outputs + 1 else []
    called = [i for i, name in enumerate(names) if i >= outputs and is_cache(name)]
    if len(called) == 1 and len(names) == len(outs):
        return called[0]
    holding = [i for i, value in enumerate(outs) if i >= outputs and isinstance(value, tuple | list | dict)]
    if len(holding) == 1:
        return holding[0]
    return outputs if len(outs) == outputs + 1 else slice(outputs, None)


def kept(recorder: Recorder, forward: Any, outs: tuple[Any, ...], place: int | slice, order: int) -> Any:
    """The cache, with its tensors under nodes that stand at the entries of the literal that it was made by.

    As it is, where the source of `forward` shows no such literal. `order` is that of the backward pass that reads it.
    """
    cache = outs[place]
    code = getattr(inspect.unwrap(getattr(forward, "__func__", forward)), "__code__", None)
    literal = _literal(code, place) if code is not None else None
    if code is None or literal is None or not isinstance(cache, tuple | list | dict):
        return cache
    entries = dict(_entries(literal))
    items = list(cache.items() if isinstance(cache, dict) else enumerate(cache))
    if {key for key, _ in items} != set(entries):
        return cache
    found = [(key, _alias(recorder, value, code, entries[key], order)) for key, value in items]
    if isinstance(cache, dict):
        return dict(found)
    return (
        tuple(v for _, v in found) if type(cache) is tuple else [v for _, v in found] if type(cache) is list else cache
    )


def _alias(recorder: Recorder, value: Any, code: types.CodeType, entry: ast.expr, order: int) -> Any:
    known = recorder.entry(value) if isinstance(value, torch.Tensor) else None
    theirs = [n for n in recorder.graph.nodes if (s := n.meta.get("spot")) is not None and s.code is code]
    index = next((i.offset // 2 for i in dis.get_instructions(code) if i.positions and i.positions.lineno == entry.lineno), None)  # fmt: skip
    if known is None or not theirs or index is None:
        return value
    last: Spot = theirs[-1].meta["spot"]
    names = {**last.names, **{n.meta["name"]: n for n in theirs if n.meta.get("name")}}
    node = alias_at(recorder.graph, known.node, replace(last, index=index, order=order, names=names))
    node.meta["span"] = span_of(entry, code.co_filename)
    return recorder.alias(value, node)


def _entries(literal: ast.expr) -> Iterator[tuple[Any, ast.expr]]:
    if isinstance(literal, ast.Dict):
        for key, value in zip(literal.keys, literal.values, strict=True):
            if isinstance(key, ast.Constant):
                yield key.value, value
    elif isinstance(literal, ast.Tuple | ast.List):
        yield from enumerate(literal.elts)


def _literal(code: types.CodeType, place: int | slice) -> ast.expr | None:
    """The tuple, list or dictionary that a function returns at a place, or that was last bound to the name there."""
    function = function_of(code)
    returned = [n.value for n in ast.walk(function) if isinstance(n, ast.Return)] if function is not None else []
    if function is None or len(returned) != 1 or not isinstance(returned[0], ast.Tuple):
        return None
    parts = returned[0].elts
    if isinstance(place, slice):
        return ast.Tuple(parts[place], ast.Load())
    part = parts[place] if place < len(parts) else None
    if not isinstance(part, ast.Name):
        return part
    sets = [n for n in ast.walk(function) if isinstance(n, ast.Assign)]
    bound = [n for n in sets if any(isinstance(t, ast.Name) and t.id == part.id for t in n.targets)]
    return bound[0].value if len(bound) == 1 else None
