"""A forward pass that gives several outputs: its backward pass takes the gradient of each."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from chainrule.diagnosis.reading.arguments import OUTPUT, UPSTREAM, is_cache, names_returned, renamed
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.returns import function_of
from chainrule.recording import Recorder

_PLACES = re.compile(r"(d|g|up|dout|grad|dy)_?\d+")  # d1, d2: a name for each place
_SHORT = re.compile(r"(d|g)_?[a-zA-Z]\d?|(grad|d)_\w+|d[a-z]+_\w+")  # ds, dp: gradients, and no words as diff is
_OTHERWISE = {*OUTPUT, "x", "z", "inp", "input"} - {"a"}  # what a parameter may be but an upstream gradient


@dataclass(frozen=True)
class Upstreams:
    """What a backward pass takes as upstream gradients of several outputs: a parameter for each, or one for all."""

    names: list[str]
    outs: list[Any]  # each with an upstream gradient
    needed: list[str]  # the parameters that have no default
    whole: Any = None  # what the forward pass returned, where one parameter takes it as a whole

    def given(self, upstreams: list[Any]) -> dict[str, Any]:
        if self.whole is None:
            return dict(zip(self.names, upstreams, strict=True))
        named = isinstance(self.whole, dict)
        return {self.names[0]: dict(zip(self.whole, upstreams, strict=True)) if named else tuple(upstreams)}


def upstreams_of(backward: Any, forward: Any, outs: Any, known: Iterable[str], layer: bool) -> Upstreams | None:
    """What `backward` takes as the upstream gradients of the first of `outs`; None where it takes that of one output, and
    what else the forward pass gave is a cache. A `layer` keeps what it needs itself, so that all it gives is an output.

    >>> halves = torch.ones(2), torch.ones(2)
    >>> upstreams_of(lambda da, db: da, lambda x: halves, halves, ["x"], True).names
    ['da', 'db']
    >>> upstreams_of(lambda dout, mask: dout, lambda x: halves, halves, ["x"], False) is None
    True
    """
    parameters = inspect.signature(backward).parameters
    needed = [n for n, p in parameters.items() if p.default is p.empty]
    given = names_returned(forward)
    if isinstance(outs, tuple) and len(given) != len(outs):
        given = [""] * len(outs)  # of a tuple that was made elsewhere
    free = [n for n in parameters if n not in known and not is_cache(n) and n not in given]
    found = [n for n in free if n in needed]
    if len(found) == 1 and (values := _taken_whole(backward, parameters[found[0]], outs)):
        return Upstreams(found, values, needed, outs)
    if not isinstance(outs, tuple):
        return None
    optional = [n for n in free if n in needed or (parameters[n].default is None and _says_gradient(n))]
    if (layer and len(optional) == len(outs)) or all(n in needed or _places(n, given) for n in optional):
        found = optional
    values = [outs[place] for place in _in_places(found, given)[: len(outs)]]
    if len(found) < 2 or len(values) < len(found) or not all(_is_floating(v) for v in values):
        return None
    if layer and len(found) == len(outs):
        told = [_says_gradient(n) for n in found]
        named_otherwise = any(n.casefold() in _OTHERWISE for n in found)
        return Upstreams(found, values, needed) if all(told) or not (any(told) or named_otherwise) else None
    short = all(_SHORT.fullmatch(n) or UPSTREAM.fullmatch(n) for n in found)
    unnamed = short and not any(given) and not any(_is_floating(o) for o in outs[len(found) :])
    return Upstreams(found, values, needed) if unnamed or all(_is_meant(n, given) for n in found) else None


def _in_places(found: list[str], given: list[str]) -> list[int]:
    """The outputs that the parameters mean, where each tells one, and else in order."""
    places = [_places(n, given) for n in found]
    told = [p[0] for p in places if len(p) == 1]
    return told if sorted(told) == list(range(len(found))) else list(range(len(found)))


def with_upstreams(backward: Any, forward: Any) -> Any:
    """A backward function whose parameters that may be named after gradients (`dsq`) of outputs without a name are those:
    `return x @ w, x ** 2`, and `backward(dout, dsq, x, w)`. None where there is none."""
    if type(backward) is not types.FunctionType or not callable(forward):
        return None
    known, given = inspect.signature(forward).parameters, names_returned(forward)
    free = [n for n, p in inspect.signature(backward).parameters.items() if p.default is p.empty and n not in known]
    found = [n for n in free if not is_cache(n) and n not in given]
    places = {n: f"d_{i}" for i, n in enumerate(found) if not _is_meant(n, given)}
    alone = len(given) == 1  # which may be a tuple that was made elsewhere
    open_ = [(alone or given[i : i + 1] == [""]) and _says_gradient(n) for i, n in enumerate(found) if n in places]
    return renamed(backward, places) if places and len(found) > 1 and all(open_) else None


def _is_meant(name: str, given: list[str]) -> bool:
    return bool(UPSTREAM.fullmatch(name) or _PLACES.fullmatch(name) or _places(name, given))


def _places(name: str, given: list[str]) -> list[int]:
    """Where a forward pass returns what a name is the gradient of: `dc` that of `c`, of `next_c` or `c2`."""
    meant = {m.casefold() for m in names_meant(name)}
    return [i for i, g in enumerate(given) if meant & {g.casefold(), *re.findall("[a-z]+", g.casefold())}]


def _taken_whole(backward: Any, parameter: inspect.Parameter, outs: Any) -> list[Any]:
    """The outputs of which one parameter takes all the gradients: a dictionary or a tuple that is read by its keys, or a
    tuple that is unpacked there."""
    values = list(outs.values()) if isinstance(outs, dict) else list(outs) if isinstance(outs, tuple) else []
    keys = set(outs) if isinstance(outs, dict) else set(range(len(values)))
    code = getattr(backward, "__code__", None)
    function = function_of(code) if code is not None else None
    nodes = list(ast.walk(function)) if function is not None else []
    sets = [n for n in nodes if isinstance(n, ast.Assign) and ast.unparse(n.value) == parameter.name]
    unpacked = any(isinstance(t, ast.Tuple) and len(t.elts) == len(values) for n in sets for t in n.targets)
    entries = [n.slice for n in nodes if isinstance(n, ast.Subscript) and ast.unparse(n.value) == parameter.name]
    read = {k.value for k in entries if isinstance(k, ast.Constant)}
    several = isinstance(outs, dict) or len(values) > 1
    fits = several and (unpacked or read == keys or parameter.kind is parameter.VAR_POSITIONAL)
    return values if fits and all(_is_floating(v) for v in values) else []


def weighted(recorder: Recorder, outs: Sequence[Any], upstream: Callable[[Any], Any]) -> tuple[Any, list[Any]]:
    """The sum of several outputs, each weighted by an upstream gradient of its own, and those; None for what can have none."""
    upstreams = [upstream(o) if isinstance(o, torch.Tensor) else None for o in outs]
    terms = []
    for i, (o, u) in enumerate(zip(outs, upstreams, strict=True)):
        if u is not None and o.dtype.is_floating_point:
            leaf = recorder.leaf(u, name=f"g{i}")
            leaf.meta["weighs"] = True  # an output: no input that has a gradient
            terms.append((o * recorder.alias(u, leaf)).sum())
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total, upstreams


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _says_gradient(name: str) -> bool:
    return bool(UPSTREAM.fullmatch(name) or names_meant(name))
