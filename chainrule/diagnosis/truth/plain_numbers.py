"""Gradients of plain numbers against numeric differences of the person's own run, which an array may not follow: code that
asks for a float, or gives a number to what takes nothing else."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.truth.numeric import slope

_RIGHT = 1e-6  # relative: what differences in float64 can tell
_VAGUE = 1e-3  # relative: a slope that is known less well tells nothing
_ELSEWHERE = 1.25  # times a number: another place, at which a ratio is the same or is none

With = Callable[[dict[str, float]], Asked]


@dataclass
class Compared:
    """The slope of the loss along a number, and the gradient that the code leaves of it, where that is told."""

    label: str
    got: float | None
    slope: float
    doubt: float
    everywhere: bool = False  # whether got is as many times the slope at another value of the number

    @property
    def right(self) -> bool:
        return self.got is not None and self.is_slope(self.got)

    def is_slope(self, value: float) -> bool:
        return abs(value - self.slope) <= 10 * self.doubt + _RIGHT * max(abs(self.slope), abs(value), 1e-6)


def compared(asked: Asked, numbers: dict[str, float], labels: dict[str, str], given: With) -> dict[str, Compared]:
    """For each of the numbers, its slope and its gradient: that under its label, else under the one that means it. `given`
    is the request with other values. Empty where runs differ, no loss is found, or no difference tells a slope."""
    run = _Runs(asked, given, numbers)
    try:
        first, again = run(numbers), run(numbers)
        if first.loss is None or first.loss != again.loss:
            return {}
        found = {n: one for n in numbers if (one := run.compared(n, numbers, labels.get(n))) is not None}
        for name, one in found.items():
            there = run.compared(name, {**numbers, name: numbers[name] * _ELSEWHERE or 0.1}, labels.get(name))
            one.everywhere = there is not None and _same_ratio(one, there)
        return found
    except Exception:  # of theirs: it is not meant for these values
        return {}


class _Runs:
    """Runs of the code with other numbers, after each of which everything is as before."""

    def __init__(self, asked: Asked, given: With, names: dict[str, float]) -> None:
        self.given, self.names, self.state = given, names, State([asked.code, asked.args, asked.kwargs])
        arrays = [v for v in (*asked.args, *asked.kwargs.values()) if hasattr(v, "dtype")]
        kinds = [str(v.dtype).removeprefix("torch.") for v in arrays]
        self.eps = max((float(np.finfo(k).eps) for k in kinds if k in ("float16", "float32")), default=2.2e-16)

    def __call__(self, values: dict[str, float]) -> _Left:
        try:
            return _Left(self.given(values), self.names)
        finally:
            self.state.restore()

    def compared(self, name: str, numbers: dict[str, float], label: str | None) -> Compared | None:
        """The slope by the step that tells it best; None where none does, or where the run does not read the number."""
        left, size = self(numbers), abs(numbers[name]) or 1.0
        told = left.gradient(name, label)
        found = [
            s for step in {size, 1.0, size / 100} if (s := self._slope(name, numbers, left.loss, step)) is not None
        ]
        if not found:
            return None
        value, doubt = min(found, key=lambda pair: pair[1])
        got = told[1] if told is not None else None
        least = max(abs(value), abs(got or 0.0), _RIGHT * abs(left.loss or 0.0) / size)
        known = 10 * doubt <= _VAGUE * least
        return Compared(told[0] if told is not None else label or name, got, value, doubt) if known else None

    def _slope(
        self, name: str, numbers: dict[str, float], middle: float | None, size: float
    ) -> tuple[float, float] | None:
        step = self.eps**0.2 * size
        losses = {k: self({**numbers, name: numbers[name] + k * step}).loss for k in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)}
        known = {k: v for k, v in losses.items() if v is not None and math.isfinite(v)}
        if middle is None or len(known) < len(losses) or set(known.values()) == {middle}:
            return None
        value, doubt = slope(known, middle, step)
        return value, doubt + self.eps * abs(middle) / step


def _same_ratio(here: Compared, there: Compared) -> bool:
    if here.got is None or there.got is None or not here.slope or not there.slope:
        return False
    return math.isclose(here.got * there.slope, there.got * here.slope, rel_tol=1e-5)


@dataclass
class _Left:
    """What a plain run returned, kept and left in variables, and its loss."""

    asked: Asked
    names: dict[str, float]  # of the numbers
    returned: list[tuple[list[str], float]] = field(default_factory=list)  # but the loss, each under all of its names
    kept: list[tuple[str, float]] = field(default_factory=list)
    variables: list[tuple[str, float]] = field(default_factory=list)
    loss: float | None = None

    def __post_init__(self) -> None:
        space, result = _run(self.asked)
        function = getattr(self.asked.code, "__func__", None)
        owner = space.pop(function.__code__.co_varnames[0], None) if function is not None else None
        given = [d for d in (*self.asked.args, *self.asked.kwargs.values()) if isinstance(d, dict)][:1]
        for name, held in space.items():
            if (number := _number(held)) is not None:
                self.variables.append((name, number))
        self.kept = [*_in_dictionaries(space, given)]
        if hasattr(owner, "__dict__"):
            self.kept += [(k, n) for k, v in vars(owner).items() if (n := _number(v)) is not None]
            self.kept += _in_dictionaries(vars(owner), given)
        parts = result if isinstance(result, tuple | list) else [result]
        for part in parts:
            if isinstance(part, dict):
                self.returned += [([f'["{k}"]', str(k)], n) for k, v in part.items() if (n := _number(v)) is not None]
            elif (number := _number(part)) is not None:
                self.returned.append(([k for k, v in space.items() if v is part], number))
        self._take_loss(space)

    def _take_loss(self, space: dict[str, Any]) -> None:
        local = self.asked.loss if isinstance(self.asked.loss, str) else "loss"
        places = [i for i, (labels, _) in enumerate(self.returned) if local in labels]
        if not places and not isinstance(self.asked.loss, str):
            places = [i for i, (labels, _) in enumerate(self.returned) if not any(map(self._means, labels))][:1]
        if places:
            self.loss = self.returned.pop(places[0])[1]
        else:
            self.loss = _number(space.get(local))

    def _means(self, label: str) -> bool:
        return label.startswith("[") or any(n in self.names for n in names_meant(label))

    def gradient(self, name: str, label: str | None) -> tuple[str, float] | None:
        """The gradient of a number, with its label; None where several may be it, or where what is returned has no name."""
        flat = [(text, value) for labels, value in self.returned for text in labels]
        every = [flat, self.kept, self.variables]
        if label is not None:
            return next(((text, v) for tier in every for text, v in tier if text == label), None)
        untold = any(not labels for labels, _ in self.returned)
        tiers = (
            1
            if untold or any(self._means(k) for k, _ in flat)
            else 2
            if any(self._means(k) for k, _ in self.kept)
            else 3
        )
        for tier in every[:tiers]:
            of = [(text, v) for text, v in tier if text == f'["{name}"]' or name in names_meant(text)]
            if of:
                return of[0] if len({v for _, v in of}) == 1 else None
        return None


def _run(asked: Asked) -> tuple[dict[str, Any], Any]:
    """The variables of the function when it returned, and what it returned."""
    code = getattr(getattr(asked.code, "__func__", asked.code), "__code__", None)
    space: dict[str, Any] = {}

    def at_return(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            space.clear()
            space.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(at_return)
    try:
        result = asked.code(*asked.args, **asked.kwargs)
    finally:
        sys.setprofile(before)
    return space, result


def _in_dictionaries(space: dict[str, Any], given: list[Any]) -> Iterator[tuple[str, float]]:
    """The numbers in the dictionaries of a namespace, by key; but those of the one that was given, the parameters."""
    for held in space.values():
        if isinstance(held, dict) and all(held is not d for d in given):
            yield from ((f'["{k}"]', n) for k, v in held.items() if (n := _number(v)) is not None)


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, int | float | np.floating) and not isinstance(value, bool):
        return float(value)
    return None
