"""A forward pass that gives several outputs: its backward pass takes the gradient of each."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch

from chainrule.diagnosis.reading.arguments import (
    OUTPUT,
    SHORT,
    UPSTREAM,
    is_cache,
    names_of_return,
    names_returned,
    renamed,
)
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.returns import function_of
from chainrule.errors import ChainruleError
from chainrule.recording import Recorder

_PLACES = re.compile(r"(d|g|up|dout|grad|dy)_?\d+")  # d1, d2: a name for each place
_OTHERWISE = {*OUTPUT, "x", "z", "inp", "input"} - {"a"}  # what a parameter may be but an upstream gradient


@dataclass(frozen=True)
class Upstreams:
    """What a backward pass takes as upstream gradients of several outputs: a parameter for each, or one for all."""

    names: list[str]
    outs: list[Any]  # each with an upstream gradient
    needed: list[str]  # the parameters that have no default
    whole: Any = None  # what the forward pass returned, where one parameter takes it as a whole
    places: int = 0  # how many of the outputs these are, a tuple of several as one

    def given(self, upstreams: list[Any]) -> dict[str, Any]:
        if self.whole is None:
            return dict(zip(self.names, upstreams, strict=True))
        if isinstance(self.whole, dict):
            return {self.names[0]: dict(zip(self.whole, upstreams, strict=True))}
        made = getattr(type(self.whole), "_make", tuple)  # of a named tuple
        return {self.names[0]: made(upstreams)}


def upstreams_of(
    backward: Any, forward: Any, outs: Any, known: Iterable[str], layer: bool, called: Sequence[str] = ()
) -> Upstreams | None:
    """What `backward` takes as the upstream gradients of the first of `outs`; None where it takes that of one output, and
    what else the forward pass gave is a cache. A `layer` keeps what it needs itself, so that all it gives is an output.
    `called` are the names that the outputs have where they were computed.

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
        given = [c if c in parameters and not is_cache(c) else g for g, c in zip(given, called or given, strict=True)]
    free = [n for n in parameters if n not in known and not is_cache(n) and n not in given]
    found = [n for n in free if n in needed]
    if len(found) == 1:
        for whole, places in _wholes(outs):
            if values := _taken_whole(backward, parameters[found[0]], whole):
                return Upstreams(found, values, needed, whole, places)
    if not isinstance(outs, tuple):
        return None
    floating = [_is_floating(o) for o in outs]
    front = sum(floating) if floating == sorted(floating, reverse=True) else 0
    if front and front < len(outs) and len(found) == front + 1 and all(map(_says_gradient, found[:-1])):
        found = found if _says_gradient(found[-1]) else found[:-1]  # behind them a cache of any name
    optional = [n for n in free if n in found or (_is_nothing(parameters[n].default) and _says_gradient(n))]
    told = _by_last_letter(optional, called)
    if (layer and len(optional) == len(outs)) or all(n in needed or _places(n, given) or n in told for n in optional):
        found = optional
    order = _in_places(found, given)
    if order is None:
        order = [told[n] for n in found] if set(told) >= set(found) else list(range(len(found)))
    values = [outs[place] for place in order if place < len(outs)]
    if len(found) < 2 or len(values) < len(found):
        return None
    if not all(_is_floating(v) for v in values) or sorted(order) != list(range(len(found))):
        if sum(floating) == len(found) and not front and all(map(_says_gradient, found)):
            raise ChainruleError(
                f"what a forward pass keeps for its backward pass stands between its outputs, of which {', '.join(found)} "
                "may be the gradients; return it behind them"
            )
        return None
    places = len(found)
    if (layer and places == len(outs)) or (front == places < len(outs) and not any(map(_says_gradient, found))):
        says = [_says_gradient(n) for n in found]
        named_otherwise = any(n.casefold() in _OTHERWISE for n in found)
        plain = all(says) or not (any(says) or named_otherwise)
        return Upstreams(found, values, needed, None, places) if plain else None
    short = all(SHORT.fullmatch(n) or UPSTREAM.fullmatch(n) for n in found)
    unnamed = short and not any(given) and not any(floating[places:])
    meant = unnamed or all(_is_meant(n, given) or n in told for n in found)
    return Upstreams(found, values, needed, None, places) if meant else None


def left_out(backward: Any, outs: Any, known: Iterable[str], taken: Upstreams | None) -> list[str]:
    """The parameters that may take the gradient of another output, and are left at the nothing that they have."""
    if not isinstance(outs, tuple):
        return []
    parameters = inspect.signature(backward).parameters
    others = [n for n, p in parameters.items() if n not in known and _is_nothing(p.default) and _says_gradient(n)]
    others = [n for n in others if not is_cache(n) and (taken is None or n not in taken.names)]
    weighed = taken.places if taken is not None else 1
    return others if sum(map(_is_floating, outs)) >= weighed + len(others) else []


def _wholes(outs: Any) -> Iterable[tuple[Any, int]]:
    """What one parameter may take the gradients of: all outputs; those before a cache; the first, which holds several."""
    yield outs, len(outs) if isinstance(outs, tuple) else 1
    if isinstance(outs, tuple) and outs:
        front = list(takewhile(_is_floating, outs))
        if front and not any(map(_is_floating, outs[len(front) :])):
            yield tuple(front), len(front)
        yield outs[0], 1


def _is_nothing(default: Any) -> bool:
    return default is None or (isinstance(default, int | float) and not isinstance(default, bool) and default == 0)


def _in_places(found: list[str], given: Sequence[str]) -> list[int] | None:
    """The outputs that the parameters mean, where each tells one; None where they tell none."""
    places = [_places(n, given) for n in found]
    told = [p[0] for p in places if len(p) == 1]
    return told if sorted(told) == list(range(len(found))) else None


def _by_last_letter(found: list[str], called: Sequence[str]) -> dict[str, int]:
    """The outputs that the parameters mean, where their letters tell: `dnext_h` that of `nh`."""
    letters = [re.sub(r"[\d_]+$", "", c)[-1:].casefold() for c in called]
    places = {n: [p for p, c in enumerate(letters) if c and c in _letters(n)] for n in found}
    return {n: p[0] for n, p in places.items() if len(p) == 1 and sum(p == o for o in places.values()) == 1}


def _letters(name: str) -> set[str]:
    """The letters that a name says it is the gradient of: h, for `dnext_h` and `dh_next`."""
    return {w for m in names_meant(name) for w in re.findall("[a-z]+", m.casefold()) if len(w) == 1}


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


def _is_meant(name: str, given: Sequence[str]) -> bool:
    return bool(UPSTREAM.fullmatch(name) or _PLACES.fullmatch(name) or _places(name, given))


def _places(name: str, given: Sequence[str]) -> list[int]:
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
    fields = getattr(outs, "_fields", ())
    attributes = {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == parameter.name}
    read_so = unpacked or read == keys or (bool(fields) and attributes == set(fields))
    fits = several and (read_so or parameter.kind is parameter.VAR_POSITIONAL)
    return values if fits and all(_is_floating(v) for v in values) else []


def named_within(recorder: Recorder, outs: Any) -> dict[str, Any]:
    """Values of a run under the names that they have where they were computed; a cache is told otherwise."""
    outs = outs if isinstance(outs, tuple) else ()
    pairs = zip(names_within(recorder, outs), outs, strict=True)
    return {name: value for name, value in pairs if name and not is_cache(name)}


def names_within(recorder: Recorder, outs: tuple[Any, ...]) -> list[str]:
    """The names of several values in the function that computed them: they were returned there together, or were bound."""
    entries = [recorder.entry(o) if isinstance(o, torch.Tensor) else None for o in outs]
    metas = [e.node.meta if e is not None else {} for e in entries]
    codes = [m["spot"].code for m in metas if m.get("spot") is not None]
    together = next((n for c in codes if len(n := names_of_return(c)) == len(outs)), [""] * len(outs))
    return [name or str(meta.get("name") or "") for name, meta in zip(together, metas, strict=True)]


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
