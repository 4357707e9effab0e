"""Arguments that are plain Python numbers: parameters, where a gradient of them is written or asked for."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from chainrule.arrays.code import is_numpy_code, reached
from chainrule.diagnosis.reading.claims import names_meant
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.labels import labels_set_by
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.report import Report
from chainrule.errors import ChainruleError
from chainrule.recording.names import is_person


def by_gradients(asked: Asked, report: Callable[[Asked], Report]) -> Report:
    """The report on the code, given a number as an input where it leaves a gradient of it: `b=0.3`, and `db`. Numbers of
    which it leaves none (lr, eps) stay numbers."""
    numbers = _numbers(asked)
    wanted = set(_names_in(asked.wrt))
    likely = wanted | {n for label in _labels(asked) for n in names_meant(label)} if numbers else set()
    found = _left(asked, [n for n in numbers if n in likely], report, wanted)
    if found is not None:
        return found
    try:
        return report(asked)
    except ChainruleError:  # gradients that are told by their order, of numbers too
        every = [n for n, p in _parameters(asked).items() if n in numbers and p.default is p.empty]
        found = _left(asked, every, report, set(every)) if set(every) - likely and not wanted else None
        if found is None:
            raise
        return found


def _left(asked: Asked, names: list[str], report: Callable[[Asked], Report], wanted: set[str]) -> Report | None:
    """The report with some numbers as inputs, or with those among them that have a gradient; None where none has, or not
    all that are `wanted`."""
    while names:
        try:
            found = report(_with_inputs(asked, names))
        except Exception:  # of theirs, too: an array does not do all that a number does
            if wanted & set(_names_in(asked.wrt)):
                raise
            return None
        told = {row.name for row in found.rows if row.status != "missing"}
        having = [n for n in names if n in told]
        if wanted & set(names) - set(having):
            return None
        if having == names:
            return found
        names = having
    return None


def _with_inputs(asked: Asked, names: list[str]) -> Asked:
    """The numbers of these names as arrays of no axes, or tensors, as the code computes with."""
    numpy = is_numpy_code(asked.code, (asked.args, asked.kwargs))
    doubles = {n: torch.tensor(v, dtype=torch.float64) for n, v in _numbers(asked).items() if n in names}
    made = {n: v.numpy() if numpy else v for n, v in doubles.items()}
    places = list(_parameters(asked))[: len(asked.args)]
    args = tuple(made.pop(n, value) for n, value in zip(places, asked.args, strict=False))
    return replace(asked, args=args + asked.args[len(places) :], kwargs={**asked.kwargs, **made})


def _numbers(asked: Asked) -> dict[str, float]:
    """The arguments that are plain numbers, defaults too, by their names."""
    parameters = _parameters(asked)
    given = dict(zip(parameters, asked.args, strict=False)) | asked.kwargs
    values = {n: given.get(n, p.default) for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    kinds = int, float, np.floating
    return {n: float(v) for n, v in values.items() if isinstance(v, kinds) and not isinstance(v, bool)}


def _parameters(asked: Asked) -> dict[str, inspect.Parameter]:
    code = asked.forward or asked.reference or asked.code
    try:
        return dict(inspect.signature(code if callable(code) else getattr(code, "forward", code)).parameters)
    except (TypeError, ValueError):
        return {}


def _names_in(wrt: Any) -> list[str]:
    items = wrt if isinstance(wrt, list | tuple | set) else [wrt]
    return [item for item in items if isinstance(item, str)]


def _labels(asked: Asked) -> Iterator[str]:
    """The names under which the code keeps something: variables, keys and attributes."""
    for item in reached(asked.code):
        if isinstance(item, types.FunctionType) and is_person(item.__code__):
            function = function_of(item.__code__)
            yield from labels_set_by(function) if function is not None else ()
