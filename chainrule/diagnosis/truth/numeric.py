"""NumPy code that cannot be recorded: its gradients are compared with numeric differences of its own forward pass."""

from __future__ import annotations

import ast
import copy
import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chainrule.arrays.array import Array, Unfollowed
from chainrule.arrays.values import as_tensors, mapped
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.arguments import arguments_by_name, named_by, upstream_of, with_defaults
from chainrule.diagnosis.reading.caches import place_of
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.forms import has_backward
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.labels import lines_that_set
from chainrule.diagnosis.reading.outputs import upstreams_of
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.report import Finding, Report, Row

_ENTRIES = 64  # of an input, whose slopes are taken
_SECONDS = 2.0  # for all of them
_RIGHT = 1e-6  # relative to the largest slope: what differences in float64 can tell
_LEFT_OUT = 1e-4  # relative to the largest slope: where two steps, or two sides, tell slopes further apart
_NOISE = 20  # roundings of the loss in a difference
_VAGUE = 1e-2  # relative: what tells less than this tells nothing
Floats = np.ndarray[Any, Any]


@dataclass
class _Gradient:
    """A gradient that the code gave, and the input that it is of."""

    name: str
    label: str
    value: Any
    line: int | None


def by_differences(asked: Asked, error: Unfollowed) -> Report:
    """A row for each gradient that a pair of NumPy functions, or a NumPy layer, gives. Raises `error` where the code is
    of another form, or where its forward pass gives other numbers each time."""
    pair = asked.forward is not None and inspect.isfunction(asked.code)
    if not (pair or has_backward(asked.code)) or asked.reference is not None or asked.function:
        raise error
    run = _Run(asked)
    if not run.repeats() or run.has_several_outputs():
        raise error
    report = Report(
        [], notes=[f"compared with numeric differences in float64, as the forward pass is not recorded: {error}"]
    )
    gradients = list(run.gradients())
    for left, gradient in zip(range(len(gradients), 0, -1), gradients, strict=True):
        _compare(gradient, run, report, run.seconds / left)
    if not report.rows:
        raise error
    return report


@dataclass
class _Slopes:
    """The slopes at some entries of an input, as flat indices."""

    places: np.ndarray[Any, np.dtype[np.int64]]
    values: Floats
    doubts: Floats  # how far two steps, or two sides, are apart
    noise: float  # that rounding puts into each

    def told(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which are known: no kink is near."""
        known = np.isfinite(self.values) & np.isfinite(self.doubts)
        size = float(np.abs(self.values[known]).max(initial=0.0))
        return known & (self.doubts <= self.noise + _LEFT_OUT * size)


def slope(at: dict[float, float], middle: float, step: float) -> tuple[float, float]:
    """A slope by a five-point difference, from values at multiples of a step, and how far it may be off: what another
    step tells, and what the two sides tell, curvature left out.

    >>> round(slope({k: (1 + k / 100) ** 3 for k in (-2, -1, -0.5, 0.5, 1, 2)}, 1.0, 0.01)[0], 9)
    3.0
    >>> slope({k: abs(k) for k in (-2, -1, -0.5, 0.5, 1, 2)}, 0.0, 1.0)
    (0.0, 2.0)
    """
    wide = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
    narrow = (8 * (at[0.5] - at[-0.5]) - (at[1] - at[-1])) / (6 * step)
    gap = (at[1] + at[-1] - 2 * middle) / step
    gap_nearer = 2 * (at[0.5] + at[-0.5] - 2 * middle) / step
    return narrow, max(abs(wide - narrow), abs(2 * gap_nearer - gap))


class _Run:
    """The forward pass as a function of its floating arrays, in float64, and the backward pass after it."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.object = None if asked.forward is not None else _doubled(asked.code)
        called = asked.forward or (self.object if callable(self.object) else self.object.forward)  # type: ignore[union-attr]
        bound = inspect.signature(called).bind(*_doubled(asked.args), **_doubled(asked.kwargs))
        self.given: dict[str, Any] = dict(bound.arguments)
        held = {} if self.object is None else vars(self.object)
        self.arrays = {**dict(_arrays(held)), **dict(_arrays(self.given))}
        self.backward = asked.code if self.object is None else type(asked.code).backward
        self.seconds = _SECONDS
        self.copying = False
        out, cache = self._tried()
        self.upstream = np.random.default_rng(0).standard_normal(np.shape(out))
        kinds = [v.dtype for v in (np.asarray(out), *dict(_arrays({"": cache})).values()) if v.dtype.kind == "f"]
        self.eps = max((float(np.finfo(k).eps) for k in kinds), default=2.2e-16)

    def _tried(self) -> tuple[Any, Any]:
        """What the forward pass gives. Its inputs are copied for each call only where it writes into them, or gives
        something else for them afterwards."""
        before = {name: array.copy() for name, array in self.arrays.items()}
        found = self.forward()
        first = np.array(found[0])
        again = self.forward()[0]
        same = all(np.array_equal(self.arrays[n], before[n], equal_nan=True) for n in before)
        self.copying = not (same and np.array_equal(first, again))
        for name, array in before.items():
            self.arrays[name][...] = array
        return found

    def forward(self, owner: Any = None) -> tuple[Any, Any]:
        """The output and the cache; the random numbers are the same each time."""
        owner = self.own() if owner is None else owner
        return self._parts(owner, self._returned(owner))

    def _parts(self, owner: Any, found: Any) -> tuple[Any, Any]:
        return (found[0], found[place_of(self._called(owner), found, 1)]) if isinstance(found, tuple) else (found, None)

    def has_several_outputs(self) -> bool:
        owner = self.own()
        called, backward = self._called(owner), self.backward if owner is None else owner.backward
        return bool(upstreams_of(backward, called, as_tensors(self._returned(owner)), self.given, owner is not None))

    def _called(self, owner: Any) -> Any:
        return self.asked.forward if owner is None else owner if callable(owner) else owner.forward

    def _returned(self, owner: Any) -> Any:
        function = self._called(owner)
        before = np.random.get_state()
        np.random.seed(0)
        try:
            return function(**(copy.deepcopy(self.given) if self.copying else self.given))
        finally:
            np.random.set_state(before)

    def own(self) -> Any:
        """The object for one more call: it may set attributes."""
        return copy.deepcopy(self.object) if self.copying else copy.copy(self.object)

    def repeats(self) -> bool:
        return np.array_equal(self.forward()[0], self.forward()[0])

    def terms(self) -> Floats:
        """What the loss is the sum of."""
        return np.asarray(self.forward()[0], dtype=np.float64) * self.upstream

    def slopes(self, name: str, seconds: float) -> _Slopes:
        """The slopes of the loss along some entries of an input, as many as the time allows, spread over it."""
        array, until = self.arrays[name], time.perf_counter() + seconds
        flat = array.reshape(-1)
        places = np.unique(np.linspace(0, flat.size - 1, min(flat.size, _ENTRIES)).astype(int))
        size = float(np.abs(flat).mean()) or 1.0 if flat.size else 1.0
        step = self.eps**0.2
        terms = self.terms()
        middle, rounding = float(terms.sum()), self.eps * float(np.abs(terms).sum())
        found: dict[int, tuple[float, float]] = {}
        for place in np.random.default_rng(0).permutation(places).tolist():
            if found and time.perf_counter() > until:
                break
            at = {}
            for k in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0):
                before, flat[place] = flat[place], flat[place] + k * step * size
                try:
                    at[k] = float(self.terms().sum())
                finally:
                    flat[place] = before
            found[place] = slope(at, middle, step * size)
        order = sorted(found)
        told = np.array([found[p] for p in order]).reshape(-1, 2)
        return _Slopes(np.array(order, dtype=int), told[:, 0], told[:, 1], _NOISE * rounding / (step * size))

    def gradients(self) -> Iterator[_Gradient]:
        """What the backward pass gives, each with the input whose gradient it is."""
        owner = self.own()
        found = self._returned(owner)
        out, cache = self._parts(owner, found)
        names = list(inspect.signature(self.backward).parameters)[owner is not None :]
        alone = owner is not None and len(names) == 1
        outs = found if isinstance(found, tuple) else (found,)
        forward = self.asked.forward or getattr(owner, "forward", None)
        returned = named_by(forward, outs)
        known = with_defaults(self.backward, forward, self.given, returned)
        taken = names[0] if alone else upstream_of(names, known)
        if taken is None:
            self.upstream = np.ones(np.shape(out))
        inputs = tuple(self.given.values())
        values = arguments_by_name(names, known, taken, self.upstream, out, returned, cache, inputs)
        found = self.backward(*([] if owner is None else [owner]), *values)
        lines = _Lines(self.backward)
        of_inputs = [n for n in self.arrays if n.split(".")[0] in self.given]
        pairs = (
            list(found.items())
            if isinstance(found, dict)
            else list(zip(lines.returned(found), _several(found), strict=False))
        )
        told = any(self._meant(str(label)) for label, _ in pairs)  # then names tell, and not the order
        for k, (label, value) in enumerate(pairs):
            name = self._meant(str(label)) or (of_inputs[k] if k < len(of_inputs) and not (told and label) else None)
            if name is not None and value is not None:
                yield _Gradient(name, str(label) or f"the gradient of {name}", value, lines.of(str(label)))
        for label, value in vars(owner).items() if owner is not None else ():
            if isinstance(value, np.ndarray) and (name := self._meant(label)) is not None:
                yield _Gradient(name, f"self.{label}", value, lines.of(label))

    def _meant(self, label: str) -> str | None:
        last = {n.split(".")[-1].casefold(): n for n in self.arrays}
        return next((last[m.casefold()] for m in names_meant(label) if m.casefold() in last), None)


class _Lines:
    """Where in the source of a backward function its gradients are set."""

    def __init__(self, function: Any) -> None:
        self.tree = function_of(function.__code__)
        self.file = function.__code__.co_filename

    def returned(self, found: Any) -> list[str]:
        """The names of the variables that are returned, "" for an expression."""
        returns = [n.value for n in ast.walk(self.tree) if isinstance(n, ast.Return)] if self.tree is not None else []
        last = returns[-1] if returns else None
        parts = last.elts if isinstance(last, ast.Tuple) else [last]
        names = [p.id if isinstance(p, ast.Name) else "" for p in parts]
        return names if len(names) == len(_several(found)) else [""] * len(_several(found))

    def of(self, label: str) -> int | None:
        """The last line that sets a variable, an attribute or a key; the return statement for none."""
        if self.tree is None:
            return None
        sets = lines_that_set(label, self.tree)
        returns = [n.lineno for n in ast.walk(self.tree) if isinstance(n, ast.Return)]
        return max(sets or returns, default=None)


def _compare(gradient: _Gradient, run: _Run, report: Report, seconds: float) -> None:
    array, line, file = run.arrays[gradient.name], gradient.line, run.backward.__code__.co_filename
    expected, got, name = array.shape, np.asarray(gradient.value, dtype=np.float64), gradient.label
    if got.shape != expected:
        report.rows.append(Row(gradient.name, "wrong shape", None, None, got.shape, expected, line, file))
        said = f"{name} has shape {got.shape}, {gradient.name} has {expected}"
        report.findings.append(_finding(gradient, "wrong-shape", said, file))
        return
    began = time.perf_counter()
    slopes = run.slopes(gradient.name, seconds)
    run.seconds = max(run.seconds - (time.perf_counter() - began), 0.0)
    if len(slopes.places) < array.size:
        report.notes.append(f"{name} is compared at {len(slopes.places)} of its {array.size} entries")
    told = slopes.told()
    mine, right = got.reshape(-1)[slopes.places][told], slopes.values[told]
    gap = np.abs(mine - right)
    size, off = float(np.abs(right).max(initial=0.0)), float(gap.max(initial=0.0))
    allowed = slopes.noise + 10 * slopes.doubts[told] + _RIGHT * max(size, float(np.abs(mine).max(initial=0.0)), 1e-6)
    good = bool((gap <= allowed).all())
    if array.size and (not told.any() or (good and slopes.noise > max(_VAGUE * size, _RIGHT))):
        why = "its rounding hides the slope" if told.any() else "no two steps tell the same slope (a kink, or rounding)"
        report.notes.append(f"nothing is said of {name} by differences: {why}")
        return
    relative = off / size if size else 0.0 if good else float("inf")
    report.rows.append(Row(gradient.name, "right" if good else "wrong", off, relative, got.shape, expected, line, file))
    if not good:
        ratio = float(mine @ right) / (float(right @ right) or 1.0)
        scaled = np.abs(mine - ratio * right) <= 10 * allowed * max(abs(ratio), 1.0)
        fits = bool(size) and abs(ratio) > 1e-9 and bool(scaled.all())
        cause = (
            "unknown"
            if not fits
            else "sign"
            if abs(ratio + 1) < max(_RIGHT, 10 * slopes.noise / size)
            else "wrong-scale"
        )
        how = (
            f"it is {ratio:g} times the right gradient"
            if fits
            else f"off by up to {off:.3g}, {relative:.2g} of its size"
        )
        report.findings.append(
            _finding(gradient, cause, f"{name} {got.shape} is wrong: {how}, by numeric differences", file)
        )


def _finding(gradient: _Gradient, cause: str, said: str, file: str) -> Finding:
    text = source.line_at(file, gradient.line) if gradient.line else ""
    return Finding(gradient.name, gradient.line, cause, said, "", False, file, text)


def _several(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _doubled(value: Any) -> Any:
    """A copy with floating arrays in float64, tensors among them."""

    def convert(v: Any) -> Any:
        v = v.tensor if isinstance(v, Array) else v  # which the recorded run has left in an object
        array = np.array(v.detach().cpu().numpy() if isinstance(v, torch.Tensor) else v, order="C")
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    return mapped(value, convert, {})


def _arrays(space: dict[str, Any], path: str = "") -> Iterator[tuple[str, Floats]]:
    for name, value in space.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            yield f"{path}{name}", value
        elif isinstance(value, dict):
            yield from _arrays(value, f"{path}{name}.")
