"""A forward pass that gives several outputs: its backward pass takes the gradient of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from chainrule.diagnosis.reading.arguments import OUTPUT, UPSTREAM, is_cache, names_returned
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.recording import Recorder

_PLACES = re.compile(r"(d|g|up|dout|grad|dy)_?\d+")  # d1, d2: a name for each place
_OTHERWISE = {*OUTPUT, "x", "z", "inp", "input"} - {"a"}  # what a parameter may be but an upstream gradient


def upstreams_of(backward: Any, forward: Any, outs: Any, known: Iterable[str], layer: bool) -> list[str]:
    """The parameters of `backward` that are the upstream gradients of the first of `outs`, one for each; none where it
    takes that of one output, and what else the forward pass gave is a cache. A `layer` keeps what it needs itself, so
    that all it gives is an output.

    >>> halves = torch.ones(2), torch.ones(2)
    >>> upstreams_of(lambda da, db: da, lambda x: halves, halves, ["x"], True)
    ['da', 'db']
    >>> upstreams_of(lambda dout, mask: dout, lambda x: halves, halves, ["x"], False)
    []
    """
    if not isinstance(outs, tuple):
        return []
    needed = [n for n, p in inspect.signature(backward).parameters.items() if p.default is p.empty]
    given = names_returned(forward)
    found = [n for n in needed if n not in known and not is_cache(n) and n not in given]
    values = outs[: len(found)]
    if len(values) < max(len(found), 2) or not all(_is_floating(v) for v in values):
        return []
    if layer and len(found) == len(outs):
        told = [_says_gradient(n) for n in found]
        named_otherwise = any(n.casefold() in _OTHERWISE for n in found)
        return found if all(told) or not (any(told) or named_otherwise) else []
    meant = [UPSTREAM.fullmatch(n) or _PLACES.fullmatch(n) or {*names_meant(n)} & {*given} for n in found]
    return found if all(meant) else []


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
