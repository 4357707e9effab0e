"""Arguments that are plain Python numbers: parameters, where a gradient of them is written or asked for."""

from __future__ import annotations

import ast
import copy
import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from chainrule.arrays.code import is_numpy_code, reached
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.labels import labels_set_by
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.report import Report
from chainrule.errors import ChainruleError
from chainrule.recording.names import is_person


def by_gradients(asked: Asked, report: Callable[[Asked], Report]) -> Report:
    """The report on the code, given a number as an input where it leaves a gradient of it: `b=0.3`, and `db`. Numbers of
    which it leaves none (lr, eps) stay numbers."""
    numbers = _numbers(asked)
    wanted = set(_names_in(asked.wrt))
    labels = set(_labels(asked)) if numbers else set()
    likely = wanted | {n for label in labels for n in names_meant(label)}
    found = _left(asked, [n for n in numbers if n in likely], report, wanted)
    if found is not None:
        return found
    try:
        return report(asked)
    except ChainruleError:  # gradients that are told by their order, of numbers too, or by the parameter's own name
        required = [n for n, p in _parameters(asked).items() if p.default is p.empty]
        keys = set(_keys(asked))
        for every in ([n for n in numbers if n in keys], [n for n in required if n in numbers]):
            found = None if wanted or set(every) <= likely else _left(asked, every, report, set(every))
            if found is not None:
                return found
        raise


def _left(asked: Asked, names: list[str], report: Callable[[Asked], Report], wanted: set[str]) -> Report | None:
    """The report with some numbers as inputs, or with those among them that have a gradient; None where none has, or not
    all that are `wanted`."""
    state = State([asked.code, asked.args, asked.kwargs, asked.forward, asked.reference]) if names else None
    while names and state is not None:
        try:
            found = report(_with_inputs(asked, names))
        except Exception:  # of theirs, too: an array does not do all that a number does
            state.restore()
            if wanted & set(_names_in(asked.wrt)):
                raise
            return None
        scalars = [row for row in found.rows if row.status != "missing" and row.expected_shape == ()]
        told = {row.name.rpartition(".")[2] for row in scalars}
        having = [n for n in names if n in told]
        if having == names:
            return found
        state.restore()
        names = having if not wanted & set(names) - set(having) else []
    return None


def _with_inputs(asked: Asked, names: list[str]) -> Asked:
    """The numbers of these names as arrays of no axes, or tensors, as the code computes with."""
    numpy = is_numpy_code(asked.code, (asked.args, asked.kwargs))
    doubles = {n: torch.tensor(v, dtype=torch.float64) for n, v in _numbers(asked).items() if n in names}
    made = {n: v.numpy() if numpy else v for n, v in doubles.items()}

    held = set[str]()  # of several dictionaries, the first has the parameters

    def put(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            own = {k for k, v in value.items() if k in made and _is_number(v)} - held
            held.update(own)
            return {k: made[k] if k in own else v for k, v in value.items()}
        return made[name] if name in made and _is_number(value) else value

    parameters = _parameters(asked)
    places = [*parameters, *[""] * len(asked.args)]
    args = tuple(put(n, value) for n, value in zip(places, asked.args, strict=False))
    later = {n: p.default for n, p in list(parameters.items())[len(args) :] if n in made and _is_number(p.default)}
    kwargs = {n: put(n, value) for n, value in {**later, **asked.kwargs}.items()}
    return replace(asked, code=_holding(asked.code, made), args=args, kwargs=kwargs)


def _holding(code: Any, made: dict[str, Any]) -> Any:
    """The code with other attributes, on a copy of its object."""
    owner = _owner(code)
    own = {n: v for n, v in made.items() if _is_number(vars(owner).get(n))} if owner is not None else {}
    if not own:
        return code
    held = copy.copy(owner)
    vars(held).update(own)
    return types.MethodType(code.__func__, held) if isinstance(code, types.MethodType) else held


def _owner(code: Any) -> Any:
    """The object whose attributes may be parameters."""
    if isinstance(code, types.MethodType):
        code = code.__self__
    plain = isinstance(code, types.FunctionType | types.ModuleType | type)
    return None if plain or not isinstance(getattr(code, "__dict__", None), dict) else code


def _numbers(asked: Asked) -> dict[str, float]:
    """The arguments that are plain numbers, defaults too, by their names; those in a dictionary, by their keys, and those
    that the object holds."""
    parameters = _parameters(asked)
    given = dict(zip(parameters, asked.args, strict=False)) | asked.kwargs
    values = {n: given.get(n, p.default) for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    owner = _owner(asked.code)
    held = {} if owner is None else vars(owner)
    within = {str(k): v for d in values.values() if isinstance(d, dict) for k, v in d.items()}
    return {n: float(v) for n, v in {**held, **within, **values}.items() if _is_number(v)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)


def _parameters(asked: Asked) -> dict[str, inspect.Parameter]:
    code = asked.forward or asked.reference or asked.code
    try:
        return dict(inspect.signature(code if callable(code) else getattr(code, "forward", code)).parameters)
    except (TypeError, ValueError):
        return {}


def _names_in(wrt: Any) -> list[str]:
    items = wrt if isinstance(wrt, list | tuple | set) else [wrt]
    return [item for item in items if isinstance(item, str)]


def _keys(asked: Asked) -> Iterator[str]:
    """The keys of what the code returns or keeps in dictionaries."""
    for item in reached(asked.code):
        function = (
            function_of(item.__code__) if isinstance(item, types.FunctionType) and is_person(item.__code__) else None
        )
        for node in ast.walk(function) if function is not None else ():
            for key in node.keys if isinstance(node, ast.Dict) else ():
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value


def _labels(asked: Asked) -> Iterator[str]:
    """The names under which the code keeps something: variables, keys and attributes."""
    for item in reached(asked.code):
        if isinstance(item, types.FunctionType) and is_person(item.__code__):
            function = function_of(item.__code__)
            yield from labels_set_by(function) if function is not None else ()
