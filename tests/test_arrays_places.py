"""NumPy's functions with arguments by their place that are given by name as a rule: `np.tanh(x, out)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_check import line_of, program

import chainrule as cr
from chainrule.arrays.array import Unfollowed
from chainrule.arrays.numpy_as_torch import as_arrays, as_tensors, numpy_as_torch


def tanh(x: Any, y: Any) -> Any:
    np.tanh(x, x)
    return x


def add(x: Any, y: Any) -> Any:
    return np.add(x, 1, y)


def bounded(x: Any, y: Any) -> Any:
    np.clip(x, -0.5, 0.5, y)
    return x + y


def summed(x: Any, y: Any) -> Any:
    total = np.zeros(3)
    np.sum(x, 0, None, total)
    return total * x.sum(1, None, None, True)


def largest(x: Any, y: Any) -> Any:
    return np.max(x, 1, None, True) + x.max(0, np.zeros(3))


def spread(x: Any, y: Any) -> Any:
    return np.var(x, 0, None, None, 1)


def product(x: Any, y: Any) -> Any:
    found = np.zeros((4, 4))
    np.dot(x, y.T, found)
    return found


def parts(x: Any, y: Any) -> Any:
    whole, rest = np.zeros((4, 3)), np.zeros((4, 3))
    np.divmod(x, 0.3, whole, rest)
    return whole + 2 * rest


def joined(x: Any, y: Any) -> Any:
    found = np.zeros((8, 3))
    np.concatenate((x, y), 0, found)
    return found + np.take(found, [0], 0, None)


def running(x: Any, y: Any) -> Any:
    return np.cumsum(x, 0, None, y) + np.average(x, 1, None, False)[:, None]


def _arrays() -> list[Any]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((4, 3)), generator.standard_normal((4, 3))]


@pytest.mark.parametrize(
    "code",
    [tanh, add, bounded, summed, largest, spread, product, parts, joined, running],
    ids=lambda code: code.__name__,
)
def test_as_numpy_takes_them(code: Callable[..., Any]) -> None:
    theirs, given = _arrays(), as_arrays(tuple(_arrays()))
    expected = code(*theirs)
    with numpy_as_torch(code):
        found = as_tensors(code(*given))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    for ours, array in zip(as_tensors(given), theirs, strict=True):  # what was written into
        np.testing.assert_allclose(ours.numpy(), array, rtol=1e-12)


def weighted(x: Any, y: Any) -> Any:
    return np.average(x, 0, y)


def running_in(x: Any, y: Any) -> Any:
    return np.cumsum(x, 0, np.float32)


@pytest.mark.parametrize(
    ("code", "said"), [(weighted, "np.average with weights="), (running_in, "np.cumsum with dtype=")]
)
def test_what_cannot_be_followed_is_named(code: Callable[..., Any], said: str) -> None:
    with pytest.raises(Unfollowed, match=said), numpy_as_torch(code):
        code(*as_arrays(tuple(_arrays())))


STEP = """\
def step(x, w, b, t):
    z = x @ w
    np.add(z, b, z)
    h = np.empty_like(z)
    np.tanh(z, h)
    loss = np.sum((h - t) ** 2)
    dh = 2 * (h - t)
    dz = np.empty_like(dh)
    np.multiply(dh, 1 - h ** 2, dz)
    dw = np.empty_like(w)
    np.dot(x.T, dz, dw)
    db = np.zeros(2)
    np.sum(dz, 0, None, db)
    return loss, dw, db
"""


def _checked(text: str) -> Any:
    generator = np.random.default_rng(0)
    args = [generator.standard_normal(shape) for shape in [(4, 3), (3, 2), (2,), (4, 2)]]
    return cr.check(program(text, np=np), *args)


def test_a_step_that_writes_into_arrays_is_right() -> None:
    report = _checked(STEP)
    assert report.ok and len(report.rows) == 2, str(report)


@pytest.mark.parametrize(
    ("right", "wrong", "cause"),
    [
        ("np.multiply(dh, 1 - h ** 2, dz)", "np.multiply(dh, 1 - h, dz)", "wrong-exponent"),
        ("np.sum(dz, 0, None, db)", "np.sum(-dz, 0, None, db)", "sign"),
        ("np.multiply(dh, 1 - h ** 2, dz)", "np.multiply(dh, 1 - z ** 2, dz)", "wrong-tensor"),
    ],
)
def test_a_mistake_in_what_is_written_is_found(right: str, wrong: str, cause: str) -> None:
    text = STEP.replace(right, wrong)
    (found,) = _checked(text).findings
    assert (found.line, found.cause, found.proved) == (line_of(text, wrong), cause, True), str(found)
