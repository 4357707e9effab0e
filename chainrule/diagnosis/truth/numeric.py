"""NumPy code that cannot be recorded: its gradients are compared with numeric differences of its own forward pass."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chainrule.arrays.array import Array, Unfollowed
from chainrule.arrays.values import mapped
from chainrule.diagnosis.functions.function_calls import slope
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.arguments import arguments_by_name, upstream_of
from chainrule.diagnosis.reading.claims import names_meant
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.labels import lines_that_set
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.running import has_backward
from chainrule.diagnosis.report import Finding, Report, Row

_ENTRIES = 64  # of an input, whose slopes are taken
_RIGHT = 1e-6  # relative to the largest slope: what differences in float64 can tell
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
    if not run.repeats():
        raise error
    report = Report(
        [], notes=[f"compared with numeric differences in float64, as the forward pass is not recorded: {error}"]
    )
    for gradient in run.gradients():
        _compare(gradient, run, report)
    if not report.rows:
        raise error
    return report


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
        out = self.forward()[0]
        self.upstream = np.random.default_rng(0).standard_normal(np.shape(out))

    def forward(self, owner: Any = None) -> tuple[Any, Any]:
        """The output and the cache; the random numbers are the same each time."""
        owner = copy.deepcopy(self.object) if owner is None else owner
        function = self.asked.forward if owner is None else owner if callable(owner) else owner.forward
        before = np.random.get_state()
        np.random.seed(0)
        try:
            found = function(**copy.deepcopy(self.given))  # type: ignore[misc]
        finally:
            np.random.set_state(before)
        if not isinstance(found, tuple):
            return found, None
        return found[0], found[1] if len(found) == 2 else found[1:]

    def repeats(self) -> bool:
        return np.array_equal(self.forward()[0], self.forward()[0])

    def loss(self) -> float:
        return float(np.sum(self.forward()[0] * self.upstream))

    def slopes(self, name: str) -> tuple[Floats, Floats]:
        """Some entries of an input, as flat indices, and the slope of the loss along each; NaN at a kink."""
        array = self.arrays[name]
        flat = array.reshape(-1)
        places = np.unique(np.linspace(0, flat.size - 1, min(flat.size, _ENTRIES)).astype(int))
        size = float(np.abs(flat).mean()) or 1.0

        def at(place: int) -> Callable[[float], float]:
            def moved(t: float) -> float:
                before, flat[place] = flat[place], flat[place] + t * size
                try:
                    return self.loss()
                finally:
                    flat[place] = before

            return moved

        found = [slope(at(p), abs(self.loss()) + 1.0, 1e-6) for p in places]
        return places, np.array([np.nan if s is None else s / size for s in found])

    def gradients(self) -> Iterator[_Gradient]:
        """What the backward pass gives, each with the input whose gradient it is."""
        owner = copy.deepcopy(self.object)
        out, cache = self.forward(owner)
        names = [n for n in inspect.signature(self.backward).parameters if owner is None or n != "self"]
        taken = upstream_of(names, self.given)
        if taken is None:
            self.upstream = np.ones(np.shape(out))
        inputs = tuple(self.given.values())
        values = arguments_by_name(names, self.given, taken, self.upstream, out, None, cache, inputs)
        found = self.backward(*([] if owner is None else [owner]), *values)
        lines = _Lines(self.backward)
        of_inputs = [n for n in self.arrays if n.split(".")[0] in self.given]
        pairs = (
            list(found.items())
            if isinstance(found, dict)
            else list(zip(lines.returned(found), _several(found), strict=False))
        )
        for k, (label, value) in enumerate(pairs):
            name = self._meant(str(label)) or (of_inputs[k] if k < len(of_inputs) else None)
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


def _compare(gradient: _Gradient, run: _Run, report: Report) -> None:
    places, slopes = run.slopes(gradient.name)
    expected, line, file = run.arrays[gradient.name].shape, gradient.line, run.backward.__code__.co_filename
    got = np.asarray(gradient.value, dtype=np.float64)
    name = gradient.label
    if got.shape != expected:
        report.rows.append(Row(gradient.name, "wrong shape", None, None, got.shape, expected, line, file))
        said = f"{name} has shape {got.shape}, {gradient.name} has {expected}"
        report.findings.append(_finding(gradient, "wrong-shape", said, file))
        return
    told = ~np.isnan(slopes)
    mine, right = got.reshape(-1)[places][told], slopes[told]
    size = float(np.abs(right).max(initial=0.0))
    off = float(np.abs(mine - right).max(initial=0.0))
    good = off <= _RIGHT * max(size, float(np.abs(mine).max(initial=0.0)), 1e-6)
    relative = off / size if size else 0.0 if good else float("inf")
    report.rows.append(Row(gradient.name, "right" if good else "wrong", off, relative, got.shape, expected, line, file))
    if not good:
        ratio = float(mine @ right) / (float(right @ right) or 1.0)
        fits = (
            bool(size)
            and abs(ratio) > 1e-9
            and float(np.abs(mine - ratio * right).max()) <= 10 * _RIGHT * size * abs(ratio)
        )
        cause = "unknown" if not fits else "sign" if abs(ratio + 1) < 1e-6 else "wrong-scale"
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
