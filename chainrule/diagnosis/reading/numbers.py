"""Arguments that are plain Python numbers: parameters, where a gradient of them is written or asked for."""

from __future__ import annotations

import copy
import inspect
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from chainrule.arrays.code import kinds_of, reached
from chainrule.diagnosis.reading.arguments import parameters_of
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.labels import Function, keys_set_by, labels_handed_by, labels_set_by
from chainrule.diagnosis.reading.returns import function_of
from chainrule.recording.names import is_person


def with_inputs(asked: Asked, names: Iterable[str]) -> Asked:
    """The numbers of these names as arrays of no axes, or tensors, as the code computes with."""
    numpy = "torch" not in kinds_of(asked.code, (asked.args, asked.kwargs))
    known = plain_numbers(asked)
    doubles = {n: torch.tensor(known[n], dtype=torch.float64) for n in names if n in known}
    return with_values(asked, {n: v.numpy() if numpy else v for n, v in doubles.items()})


def with_values(asked: Asked, made: dict[str, Any]) -> Asked:
    """The request with other values for its numbers of these names."""
    held = set[str]()  # of several dictionaries, the first has the parameters

    def put(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            own = {k for k, v in value.items() if k in made and _is_number(v)} - held
            held.update(own)
            return {k: made[k] if k in own else v for k, v in value.items()}
        return made[name] if name in made and _is_number(value) else value

    parameters = parameters_taken(asked)
    places = [*parameters, *[""] * len(asked.args)]
    args = tuple(put(n, value) for n, value in zip(places, asked.args, strict=False))
    left = {n: p.default for n, p in list(parameters.items())[len(args) :]}
    later = {n: v for n, v in left.items() if isinstance(v, dict) or (n in made and _is_number(v))}
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


def plain_numbers(asked: Asked) -> dict[str, float]:
    """The arguments that are plain numbers, defaults too, by their names; those in a dictionary, by their keys, and those
    that the object holds."""
    return {n: float(v) for n, v in _values(asked).items() if _is_number(v)}


def lists_of_numbers(asked: Asked) -> list[str]:
    """The names of lists of plain numbers, nested ones too, among what the code is given."""
    return [n for n, v in _values(asked).items() if isinstance(v, list) and _holds_numbers(v)]


def _holds_numbers(value: Any) -> bool:
    inside = isinstance(value, list | tuple) and bool(value) and all(map(_holds_numbers, value))
    return inside or _is_number(value)


def _values(asked: Asked) -> dict[str, Any]:
    """What the code is given, by its name or key, and what its object holds."""
    parameters = parameters_taken(asked)
    given = dict(zip(parameters, asked.args, strict=False)) | asked.kwargs
    values = {n: given.get(n, p.default) for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    owner = _owner(asked.code)
    held = {} if owner is None else vars(owner)
    dictionaries = [d for d in values.values() if isinstance(d, dict)]
    within = {str(k): v for d in reversed(dictionaries) for k, v in d.items()}  # the first has the parameters
    return {**held, **within, **values}


def names_given(asked: Asked) -> set[str]:
    """The names of all that the code is given: arguments, their keys, what its object holds."""
    parameters = parameters_taken(asked)
    given = {
        **{n: p.default for n, p in parameters.items()},
        **dict(zip(parameters, asked.args, strict=False)),
        **asked.kwargs,
    }
    keys = {str(k) for d in given.values() if isinstance(d, dict) for k in d}
    owner = _owner(asked.code)
    return {*given, *keys, *(vars(owner) if owner is not None else ())}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)


def parameters_taken(asked: Asked) -> dict[str, inspect.Parameter]:
    """The parameters of the forward pass."""
    code = asked.forward or asked.reference or asked.code
    return parameters_of(code if callable(code) else getattr(code, "forward", code))


def names_in(wrt: Any) -> list[str]:
    items = wrt if isinstance(wrt, list | tuple | set) else [wrt]
    return [item for item in items if isinstance(item, str)]


def meant_in(asked: Asked, numbers: Iterable[str]) -> set[str]:
    """Those of the numbers of which the code hands on a gradient: returned, in a dictionary, as an attribute; where it
    hands on none, those of which its variables are the gradient. `dw`, and not the `gn` beside it."""
    functions = list(_functions(asked))
    for read in (labels_handed_by, labels_set_by):
        labels = {label: set(names_meant(label)) & set(numbers) for f in functions for label in read(f)}
        labels = {label: names for label, names in labels.items() if names}
        if any(label.startswith("d") for label in labels):
            labels = {label: names for label, names in labels.items() if not _OTHER.fullmatch(label)}
        if labels:
            return {name for names in labels.values() for name in names}
    return set()


_OTHER = re.compile(r"g(?!rad)[a-zA-Z]\w*")  # gn, gm: a norm, where gradients are called dw


def keys_in(asked: Asked) -> set[str]:
    """The keys of what the code returns or keeps in dictionaries."""
    return {key for function in _functions(asked) for key in keys_set_by(function)}


def _functions(asked: Asked) -> Iterator[Function]:
    """The person's functions that the code reaches, as they are written."""
    for item in reached(asked.code):
        if isinstance(item, types.FunctionType) and is_person(item.__code__):
            function = function_of(item.__code__)
            if function is not None:
                yield function
