"""Other data for a person's code: a repair that holds for the given data alone is none."""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from chainrule.arrays.array import Array
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.numbers import plain_numbers, with_values
from chainrule.diagnosis.repairing.proof import kept, repaired, wrong_names
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case
from chainrule.diagnosis.truth.points import fresh, repeated
from chainrule.diagnosis.truth.reruns import Change, Rerun
from chainrule.diagnosis.truth.sizes import unequal
from chainrule.run import needed
from chainrule.work import work

_SECONDS = 1.5  # of runs with other data
_WHOLE = 3  # whole numbers, each of which takes a run
_LENGTHS = 3  # lengths
_LOOSE = 3  # axes, of which any may have to stay as long as they are
_LARGE = 2_000_000  # elements of arrays that are made longer together
_ELEMENTS, _TRIALS = 20_000, 100  # of all inputs, and runs of the forward pass, where shapes that fit are looked for


@dataclass
class _Other:
    """A run of the code, as it stands, with other data."""

    rerun: Rerun
    located: Located

    def confirms(self, edit: Edit, code: types.CodeType, right: set[str]) -> bool:
        """Whether what a repair makes right for the given data, it makes right for these."""
        return right & wrong_names(self.located) <= repaired(edit, code, self.rerun, self.located).names


class Proofs:
    """Proves repairs: by a run with the given data, and by runs with other numbers, longer lists and other sizes, for
    which all that is right for the given data is right."""

    def __init__(self, located: Located, rerun: Rerun) -> None:
        self.located, self.rerun = located, rerun
        self.left = _SECONDS
        self.refuted: list[Edit] = []  # right for the given data alone
        self.failed: set[Edit] = set()  # right for no data
        self.proved: dict[Edit, types.CodeType] = {}  # with the code that they are made in
        self.untold: dict[Edit, tuple[types.CodeType, frozenset[str]]] = {}  # right on the way, where nothing tells so

    def right(self, edit: Edit, code: types.CodeType, whole: bool = False) -> set[str]:
        """The gradients that are right by themselves with the edit made; none if another one has become wrong, or, of a
        `whole` repair, if one is left wrong; none, too, if they are right for the given data alone."""
        if edit in self.refuted:
            return set()
        found = repaired(edit, code, self.rerun, self.located, whole)
        if not found.names:
            self.failed.add(edit)
        if not found.told and found.names:
            self.untold[edit] = code, found.names
        if not found.told or not found.names:
            return set()
        names = self._in_all_turns(found.names)
        if names and all(self._confirms(other, edit, code, names) for other in self._others):
            self.proved[edit] = code
            return names
        self.refuted.append(edit)
        return set()

    def _in_all_turns(self, right: frozenset[str]) -> set[str]:
        """What is right in every turn of a loop, of what one line of it gives."""
        turns: dict[tuple[types.CodeType, int, int], set[str]] = {}
        for claim, spot in ((w.claim, w.claim.spot) for w in self.located.wrong):
            if spot is not None:
                turns.setdefault((spot.code, spot.index, spot.call), set()).add(claim.name)
        return set(right).difference(*(names for names in turns.values() if not names <= right))

    def _confirms(self, other: _Other, edit: Edit, code: types.CodeType, names: set[str]) -> bool:
        with self._timed():
            return self.left <= 0 or other.confirms(edit, code, names)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = work()
        try:
            yield
        finally:
            self.left -= work() - began

    @cached_property
    def _others(self) -> list[_Other]:
        """Runs with data of which every broken number and every length is another, at once if the code is meant for that;
        and with other whole numbers, each of which may as well be a switch."""
        asked = self.located.case.hand.asked
        numbers = {n: v for n, v in plain_numbers(asked).items() if v and math.isfinite(v)}
        broken = {n: v * (0.83 if 0 < v < 1 else 1.31) for n, v in numbers.items() if not v.is_integer()}
        every = list(_arrays((asked.args, asked.kwargs)))
        lengths = list(dict.fromkeys(n for n in _lengths((asked.args, asked.kwargs)) if n > 1))
        lengths = [n for n in lengths if sum(math.prod(a.shape) for a in every if n in a.shape) <= _LARGE]
        found = self._with_the_gradient_of_a_loss()
        whole = self._first(_Data(broken, {n: n + 1 for n in lengths}))
        found += whole
        if not whole:
            found += self._first(_Data(broken))
            fitting = self._fitting(asked)
            found += [other for other, _ in fitting]
            changed = {n for _, data in fitting for n in data.changed(asked)}
            for n in [n for n in lengths if n not in changed][:_LENGTHS]:
                found += self._first(_Data({}, {n: n + 1}), _Data({}, {n: 2 * n}))
        for name in [n for n, v in numbers.items() if v.is_integer()][:_WHOLE]:
            found += self._first(*_with_another(name, int(numbers[name]), lengths, [a.shape for a in every]))
        return found

    def _fitting(self, asked: Asked) -> list[tuple[_Other, _Data]]:
        """A run with arguments of shapes that fit one another, where sizes are bound: the rows of a weight to the context
        times the width of an embedding."""
        hand, case = self.located.case.hand, self.located.case
        inputs = {n: n.meta["val"] for n in hand.recorder.inputs if isinstance(n.meta["val"], torch.Tensor)}
        if self.left <= 0 or sum(v.numel() for v in inputs.values()) > _ELEMENTS:
            return []
        places: dict[str, int | str] = {k: i for i, k in enumerate(hand.parameters)} | {k: k for k in asked.kwargs}
        nodes = {id(n.meta.get("given", n.meta["val"])): n for n in inputs}
        given = {places[k]: nodes.get(id(v)) for k, v in hand.recorder.arguments.items() if k in places}
        with self._timed():
            found = unequal(needed([case.base.output]), inputs, seed=3, runs=_TRIALS, moving=given.values()) or {}
        before = {k: tuple(inputs[n].shape) for k, n in given.items() if n in found}
        after = {k: tuple(found[n].shape) for k, n in given.items() if n in found}
        # what the graph has as a number, `range(n)`, binds sizes that it does not know to be bound: these may have to stay
        stays = {m for k in after for m, n in zip(before[k], after[k], strict=True) if m == n}
        loose = [(k, i) for k in after for i, m in enumerate(before[k]) if m in stays and m != after[k][i]]
        kept = [some for size in range(len(loose) + 1) for some in itertools.combinations(loose, size)]
        kept = kept if len(loose) <= _LOOSE else [(), tuple(loose)]
        rows = _Data({}, shapes=_with_as_many_rows(after, before))
        data = [rows, *(_Data({}, shapes=_with_axes(after, before, some)) for some in kept)]
        return list(itertools.islice(((other, d) for d in data if (other := self._with(d)) is not None), 1))

    def _with_the_gradient_of_a_loss(self) -> list[_Other]:
        """A run in which the gradient of the loss is 1, for which code may take a branch of its own."""
        hand = self.located.case.hand
        if hand.upstream is None or hand.output.numel() != 1:
            return []
        other = self._with(lambda asked: replace(asked, unit=True))
        return [other] if other is not None else []

    def _first(self, *data: _Data) -> list[_Other]:
        """The run with the first data for which the code is meant."""
        runs = (other for d in data if (d.numbers or d.lengths) and (other := self._with(d)) is not None)
        return list(itertools.islice(runs, 1))

    def _with(self, change: Change) -> _Other | None:
        """None where the code does not run for these data, or is not meant for them."""
        if self.left <= 0 or work() > self.located.case.until:
            return None
        rerun = self.rerun.changed(change)
        try:
            with self._timed(), kept(self.located.case):
                located = Located(Case(rerun()))
        except Exception:  # whatever their code raises
            return None
        truths = [located.case.here.truth(c.value) for c in located.case.claims]
        finite = all(bool(torch.isfinite(t).all()) for t in truths)
        return _Other(rerun, located) if finite and wrong_names(located) <= wrong_names(self.located) else None


def _with_another(name: str, value: int, lengths: Iterable[int], shapes: Iterable[tuple[int, ...]]) -> Iterator[_Data]:
    """Another whole number: alone, or with lengths that it divides as the one before did, where that is not too large."""
    yield from (_Data({name: other}) for other in (value + 1, 2 * value))
    for other, times in ((value + 1, value + 1), (2 * value, 2)):
        longer = {n: times * n for n in lengths}
        if sum(math.prod(longer.get(n, n) for n in shape) for shape in shapes) <= _LARGE:
            yield _Data({name: other}, longer)


_Shapes = Mapping[int | str, tuple[int, ...]]


def _with_axes(shapes: _Shapes, others: _Shapes, axes: Iterable[tuple[int | str, int]]) -> _Shapes:
    """Shapes, of which some axes are as in others."""
    chosen = set(axes)
    return {
        k: tuple(others[k][i] if (k, i) in chosen else n for i, n in enumerate(shape)) for k, shape in shapes.items()
    }


def _with_as_many_rows(shapes: _Shapes, before: _Shapes) -> _Shapes:
    """Shapes of which the first axes are equal where they were: labels, and what they are of, which nothing else ties."""
    rows = {
        before[k][0]: max(s[0] for j, s in shapes.items() if before[j][:1] == before[k][:1])
        for k in shapes
        if before[k]
    }
    return {k: (rows[before[k][0]], *shape[1:]) if shape else shape for k, shape in shapes.items()}


@dataclass(frozen=True)
class _Data:
    """Other numbers, other lengths of lists and axes, other shapes of arguments; with the lengths the numbers that may
    count them."""

    numbers: Mapping[str, float]
    lengths: Mapping[int, int] = field(default_factory=dict)
    shapes: _Shapes = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Asked:
        counted = {**self.lengths, **self.changed(asked)}
        counts = {n: counted[int(v)] for n, v in plain_numbers(asked).items() if v in counted}
        changed = with_values(asked, {**counts, **self.numbers})
        args, kwargs = _longer((changed.args, changed.kwargs), self.lengths, itertools.count())
        sized = {k: _sized(_at(changed, k), shape, seed) for seed, (k, shape) in enumerate(self.shapes.items())}
        args = tuple(sized.get(i, a) for i, a in enumerate(args))
        return replace(changed, args=args, kwargs={k: sized.get(k, v) for k, v in kwargs.items()})

    def changed(self, asked: Asked) -> dict[int, int]:
        """The lengths that are others in the other shapes."""
        pairs = ((m, n) for k, shape in self.shapes.items() for m, n in zip(_at(asked, k).shape, shape, strict=True))
        return {m: n for m, n in pairs if m != n}


def _at(asked: Asked, place: int | str) -> Any:
    return asked.args[place] if isinstance(place, int) else asked.kwargs[place]


_ARRAYS = (torch.Tensor, np.ndarray, Array)


def _lengths(value: Any) -> Iterator[int]:
    """How long the lists of numbers and the axes of arrays are."""
    for array in _arrays(value):
        yield from array.shape
    yield from _lengths_of_lists(value)


def _lengths_of_lists(value: Any) -> Iterator[int]:
    if isinstance(value, list | tuple | dict):
        if isinstance(value, list) and _is_of_numbers(value):
            yield len(value)
        for v in value.values() if isinstance(value, dict) else value:
            yield from _lengths_of_lists(v)


def _arrays(value: Any) -> Iterator[Any]:
    if isinstance(value, _ARRAYS):
        yield value
    elif isinstance(value, list | tuple | dict):
        for v in value.values() if isinstance(value, dict) else value:
            yield from _arrays(v)


def _is_of_numbers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_of_numbers(v) for v in value)
    return isinstance(value, int | float)


def _longer(value: Any, lengths: Mapping[int, int], seeds: Iterator[int]) -> Any:
    """The value with lists of numbers and axes of other lengths; arrays with other numbers."""
    if isinstance(value, _ARRAYS):
        if lengths.keys().isdisjoint(value.shape):
            return value
        return _sized(value, tuple(lengths.get(size, size) for size in value.shape), next(seeds))
    if isinstance(value, dict):
        return {k: _longer(v, lengths, seeds) for k, v in value.items()}
    if not isinstance(value, list | tuple) or hasattr(value, "_fields"):
        return value
    parts = [_longer(v, lengths, seeds) for v in value]
    if isinstance(value, list) and _is_of_numbers(value):
        parts += [_near(v) for v in parts[: lengths.get(len(value), len(value)) - len(value)]]
    return type(value)(parts)


def _near(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_near(v) for v in value)
    return value * 1.1 if isinstance(value, float) and value not in (0, 1) else value


def _sized(given: Any, shape: tuple[int, ...], seed: int) -> Any:
    """A tensor or an array of another shape, as what was given is."""
    with torch._C.DisableTorchFunction():
        tensor = given.tensor if isinstance(given, Array) else torch.as_tensor(given)
        value = repeated(tensor.detach(), shape, strict=True)
        made = fresh({0: value}, seed)[0].to(value.dtype)
        if isinstance(given, np.ndarray):
            return made.numpy()
        made.requires_grad_(tensor.requires_grad)
        return Array(made) if isinstance(given, Array) else made
