"""Gradients of plain numbers against numeric differences of the person's own run, which an array may not follow: code that
asks for a float, or gives a number to what takes nothing else."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.truth.numeric import slope

_RIGHT = 1e-6  # relative: what differences in float64 can tell
_ELSEWHERE = 1.25  # times a number: another place, at which a ratio is the same or is none

With = Callable[[dict[str, float]], Asked]


@dataclass
class Compared:
    """The gradient that the code leaves of a number, and the slope of its loss along it."""

    label: str
    got: float
    slope: float
    doubt: float
    everywhere: bool  # whether got is as many times the slope at another value of the number

    @property
    def right(self) -> bool:
        return self.is_slope(self.got)

    def is_slope(self, value: float) -> bool:
        return abs(value - self.slope) <= 10 * self.doubt + _RIGHT * max(abs(self.slope), abs(value), 1e-6)


def compared(asked: Asked, numbers: dict[str, float], given: With) -> dict[str, Compared]:
    """For each of the numbers of which a run leaves a gradient, what it is and should be; `given` is the request with
    other values. Empty where the runs differ, or no loss is found."""
    run = _Runs(asked, given)
    try:
        first, again = run(numbers), run(numbers)
        if first.loss is None or first.loss != again.loss:
            return {}
        found = {}
        for name in numbers:
            if first.gradient(name) is not None:
                here = _at(name, numbers, run)
                there = _at(name, {**numbers, name: numbers[name] * _ELSEWHERE or 0.1}, run)
                if here is not None:
                    found[name] = Compared(*here, there is not None and _same_ratio(here, there))
        return found
    except Exception:  # of theirs: it is not meant for these values
        return {}


class _Runs:
    """Runs of the code with other numbers, after each of which everything is as before."""

    def __init__(self, asked: Asked, given: With) -> None:
        self.given, self.state = given, State([asked.code, asked.args, asked.kwargs])
        kinds = [
            str(v.dtype).removeprefix("torch.") for v in (*asked.args, *asked.kwargs.values()) if hasattr(v, "dtype")
        ]
        self.eps = max((float(np.finfo(k).eps) for k in kinds if k in ("float16", "float32")), default=2.2e-16)

    def __call__(self, values: dict[str, float]) -> _Left:
        try:
            return _left_by(self.given(values))
        finally:
            self.state.restore()


_Measured = tuple[str, float, float, float]


def _at(name: str, numbers: dict[str, float], run: _Runs) -> _Measured | None:
    left = run(numbers)
    gradient, middle = left.gradient(name), left.loss
    step = run.eps**0.2 * (abs(numbers[name]) or 1.0)
    losses = {k: run({**numbers, name: numbers[name] + k * step}).loss for k in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)}
    if gradient is None or middle is None or any(v is None for v in losses.values()):
        return None
    if set(losses.values()) == {middle}:  # the run does not read the number here
        return None
    found, doubt = slope({k: v for k, v in losses.items() if v is not None}, middle, step)
    return *gradient, found, doubt + run.eps * abs(middle) / step


def _same_ratio(here: _Measured, there: _Measured) -> bool:
    (_, got, right, _), (_, other, elsewhere, _) = here, there
    return math.isclose(got * elsewhere, other * right, rel_tol=1e-5) and bool(right) and bool(elsewhere)


@dataclass
class _Left:
    """What a plain run returned and left in variables and attributes, by name, and its loss."""

    named: list[tuple[str, float]]  # the likelier gradient first
    loss: float | None

    def gradient(self, name: str) -> tuple[str, float] | None:
        """The gradient of a number of this name: under `dw`, or in a dictionary under `w`."""
        exact = [(label, v) for label, v in self.named if name in names_meant(label)]
        keyed = [(label, v) for label, v in self.named if label == f'["{name}"]']
        return next(iter(exact + keyed), None)


def _left_by(asked: Asked) -> _Left:
    function = getattr(asked.code, "__func__", asked.code)
    code = getattr(function, "__code__", None)
    space: dict[str, Any] = {}

    def at_return(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            space.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(at_return)
    try:
        result = asked.code(*asked.args, **asked.kwargs)
    finally:
        sys.setprofile(before)
    held = {k: v for k, v in space.items() if k != "self"}
    parts = result if isinstance(result, tuple | list) else (result,)
    candidates = [held.get(asked.loss)] if isinstance(asked.loss, str) else [result, held.get("loss"), *parts]
    loss = next((v for c in candidates if (v := _number(c)) is not None), None)
    given = [d for d in (*asked.args, *asked.kwargs.values()) if isinstance(d, dict)][
        :1
    ]  # of parameters, by their keys
    spaces = [held, *parts, vars(space["self"]) if "self" in space else {}]
    return _Left([pair for each in spaces for pair in _flat(each, given)], loss)


def _flat(value: Any, given: list[Any]) -> Iterator[tuple[str, float]]:
    """The numbers in a namespace, or in a dictionary that was returned, and those in its dictionaries, by key; but those
    of the dictionary that was given."""
    for name, held in value.items() if isinstance(value, dict) else ():
        if isinstance(held, dict) and all(held is not d for d in given):
            yield from ((f'["{k}"]', v) for k, v in _flat(held, given))
        elif (number := _number(held)) is not None:
            yield str(name), number


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, int | float | np.floating) and not isinstance(value, bool):
        return float(value)
    return None
