"""What the parameters of a backward function are called with: told by their names."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any

from chainrule.diagnosis.reading.returns import function_of

_CACHE = re.compile(r"caches?|ctx|saved|memory|mem|tape|state", re.IGNORECASE)
SHORT = re.compile(r"(d|g)_?[a-zA-Z]\d?|(grad|d)_\w+|d[a-z]+_\w+")  # ds, dp: gradients, and no words as diff is
OUTPUT = frozenset(("out", "output", "y", "a"))
_INPUT = frozenset(("input", "inp", "x", "z"))
UPSTREAM = re.compile(
    r"d_?(out|output|y|z|a|h|x|scores?|values?|logits)\w?|d[A-Z]\w*|d[lL]_?d\w+|grad\w*|\w+_grad(ient)?|g|up|g_?(out|y|z)\w*|"
    r"(upstream|top|next)\w*|out_g|delta\w*"
)


def is_cache(name: str) -> bool:
    """Whether a parameter is called as what a forward pass keeps for its backward pass."""
    return _CACHE.fullmatch(name) is not None


def upstream_of(names: list[str], known: Mapping[str, Any]) -> str | None:
    """Which parameter of a backward function is the upstream gradient: the first, unless that is an input, a cache or
    the output, or else one that is named as a gradient.

    >>> upstream_of(["dout", "cache"], {"x": 1}), upstream_of(["x", "dz"], {"x": 1}), upstream_of(["x"], {"x": 1})
    ('dout', 'dz', None)
    """
    free = [n for n in names if n not in known and not is_cache(n)]
    named = [n for n in free if UPSTREAM.fullmatch(n)]
    renamed = len(names) == len(known) and names[1:] == list(known)[1:]  # the first input, called something else
    first = [n for n in free[:1] if n == names[0] and n not in ("out", "output") and not renamed]
    return next(iter([*named, *first]), None)


def arguments_by_name(
    names: list[str],
    known: Mapping[str, Any],
    taken: str | None,
    upstream: Any,
    out: Any,
    returned: Mapping[str, Any],
    kept: Any,
    inputs: tuple[Any, ...],
) -> list[Any]:
    """The arguments of a backward function: the inputs under their names, the upstream gradient for the parameter `taken`,
    what the forward pass `returned` under the names that it has there, and for others what it kept. Where it kept
    nothing, what is called a cache is the inputs, `x` or `z` the input that has another name in the forward pass, and
    another name the output.

    >>> arguments_by_name(["dout", "cache"], {"x": 1}, "dout", "up", "y", {}, (1, 2), (1,))
    ['up', (1, 2)]
    >>> arguments_by_name(["dp", "x", "p"], {"x": 1}, "dp", "up", "y", {}, None, (1,))
    ['up', 1, 'y']
    >>> arguments_by_name(["dA", "Z"], {"x": 1}, "dA", "up", "y", {}, None, (1,))
    ['up', 1]
    """
    if len(names) == 2 and taken == names[0] and names[1] not in {*known, *returned} and kept is not None:
        return [upstream, kept]
    if taken is None and len(names) == len(inputs) and names[1:] == list(known)[1:] and names[0] not in returned:
        known = {**known, names[0]: inputs[0]}  # the first input, called something else
    free = [n for n in known if n not in names]
    told = {*known, *returned}
    renamed = dict(zip([n for n in names if n not in told and n.casefold() in _INPUT], free, strict=False))

    def given(name: str) -> Any:
        if name in known:
            return known[name]
        if name == taken:
            return upstream
        if name in returned:
            return returned[name]
        if kept is None and name in renamed:
            return known[renamed[name]]
        if name in OUTPUT or (kept is None and not is_cache(name)):
            return out
        return inputs if kept is None else kept

    return [given(name) for name in names]


def with_defaults(backward: Any, forward: Any, known: Mapping[str, Any], returned: Mapping[str, Any]) -> dict[str, Any]:
    """What is known by its name, with the defaults of the forward pass, and of what a backward function need not be given:
    `lam=0.1`.

    >>> with_defaults(lambda dout, x, cache=None, lam=0.1: dout, lambda x, p=0.5: x, {"x": 1}, {})
    {'x': 1, 'p': 0.5, 'lam': 0.1}
    """
    own = _defaults(backward)
    required = [n for n in inspect.signature(backward).parameters if n not in own and n not in known]
    cache, upstream = any(map(is_cache, required)), any(UPSTREAM.fullmatch(n) for n in required)
    told = {n for n in own if n in returned or n in OUTPUT}
    told |= {n for n in own if (is_cache(n) and not cache) or (UPSTREAM.fullmatch(n) and not upstream)}
    more = {**_defaults(forward), **{n: value for n, value in own.items() if n not in told}}
    return {**known, **{n: value for n, value in more.items() if n not in known}}


def _defaults(function: Any) -> dict[str, Any]:
    if not callable(function):
        return {}
    return {n: p.default for n, p in inspect.signature(function).parameters.items() if p.default is not p.empty}


def as_parameters(function: Any, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """A value for each parameter, in order, as the arguments that a call is given by place, and by name.

    >>> as_parameters(lambda a, *, b: (a, b), [1, 2])
    ([1], {'b': 2})
    """
    placed: list[Any] = []
    named: dict[str, Any] = {}
    for (name, p), value in zip(inspect.signature(function).parameters.items(), values, strict=True):
        if p.kind is p.KEYWORD_ONLY:
            named[name] = value
        elif p.kind is p.VAR_POSITIONAL and isinstance(value, tuple):
            placed += value
        elif p.kind is not p.VAR_KEYWORD:
            placed.append(value)
    return placed, named


def with_an_input(backward: Any, forward: Any) -> Any:
    """A backward function whose parameter of a name that tells nothing is an input of the forward pass, under another
    name there: `a_backward(dout, s)` of `a(x)`, where `s` may also be the output. None where there is none."""
    if type(backward) is not types.FunctionType or not callable(forward):
        return None
    names, known = list(inspect.signature(backward).parameters), inspect.signature(forward).parameters
    out = names_returned(forward)
    taken = upstream_of(names, known)
    if taken is None or len(out) != 1:
        return None
    told = [n for n in names if n.casefold() in _INPUT and n not in (*known, *out)]
    free = [n for n, p in known.items() if n not in names and p.default is p.empty][len(told) :]
    others = [n for n in names if n not in (*known, *told, *out, taken) and not is_cache(n)]
    open_ = [n for n in others if n.casefold() not in OUTPUT and not SHORT.fullmatch(n)]
    return renamed(backward, dict(zip(open_, free, strict=False))) if open_ and free else None


def names_returned(function: Any) -> list[str]:
    """The names of what the last `return` of a function gives, "" for an expression; none where there is no source.

    >>> names_returned(names_returned)
    ['']
    """
    code = getattr(function, "__code__", None)
    return names_of_return(code) if code is not None else []


def names_of_return(code: types.CodeType) -> list[str]:
    tree = function_of(code)
    returns = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return)] if tree is not None else []
    if not returns:
        return []
    parts = returns[-1].elts if isinstance(returns[-1], ast.Tuple) else [returns[-1]]
    return [p.id if isinstance(p, ast.Name) else "" for p in parts]


def parameters_of(code: Any) -> dict[str, inspect.Parameter]:
    """The parameters of what may be called; none where its signature is not known."""
    try:
        return dict(inspect.signature(code).parameters)
    except (TypeError, ValueError):
        return {}


def named_by(forward: Any, outs: Any) -> dict[str, Any]:
    """What a forward pass returned, under the names that it has there; a cache is told otherwise."""
    names = names_returned(forward)
    pairs = zip(names, outs, strict=True) if isinstance(outs, tuple) and len(names) == len(outs) else ()
    return {name: value for name, value in pairs if name and not is_cache(name)}


def renamed(function: types.FunctionType, names: Mapping[str, str]) -> types.FunctionType:
    """The same function, with other names in its signature."""
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__module__ = function.__kwdefaults__, function.__module__
    own = inspect.signature(function)
    parameters = [p.replace(name=names.get(n, n)) for n, p in own.parameters.items()]
    made.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return made
