"""Arrays on torch against NumPy: whole numbers, masks and mixed dtypes, and the NumPy programs of the corpus."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import float64

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from planted import Program, programs, subject

from chainrule.arrays.array import Array
from chainrule.arrays.numpy_as_torch import as_arrays, as_tensors, numpy_as_torch

ROWS = {
    "float64": np.array([[1.5, -2.25, 3.0], [4.0, 0.5, -7.0]]),
    "int64": np.array([[1, -2, 3], [4, 5, -7]]),
    "int32": np.array([[1, -2, 3], [4, 5, -7]], dtype=np.int32),
    "bool": np.array([[True, False, True], [False, True, True]]),
}
OTHERS = {
    "float64": np.array([2.0, -1.5, 3.0]),
    "int64": np.array([2, -3, 4]),
    "bool": np.array([True, False, True]),
    "whole": 3,
    "negative": -2,
    "number": 0.5,
    "flag": True,
    "scalar": np.float64(2.5),
    "list": [1, 2, 3],
    "list of floats": [1.0, 2.5, 3.0],
}


def subtracted(a, b):
    return a - b, b - a


def subtracted_in_place(a, b):
    a -= b
    return a


def subtracted_at(a, b):
    np.subtract.at(a, np.array([0, 0]), b)
    return a


def divided_with_remainder(a, b):
    return (*divmod(a, b), *np.divmod(a, b), a // b, a % b)


def put_in_row(a, b):
    a[0] = b
    return a


def put_at_list(a, b):
    a[[0, 1]] = b
    return a


def put_at_places(a, b):
    a[np.array([0, 1, 0]), np.array([2, 0, 1])] = b
    return a


def put_at_mask(a, b):
    a[np.array([True, False])] = b
    return a


def places_of_extremes(a, b):
    return np.argmax(a, axis=1), np.argmin(a > b), (a > b).argmax(axis=0)


def on_torch(code, *args):
    with numpy_as_torch(code):
        return as_tensors(code(*as_arrays([np.copy(a) if isinstance(a, np.ndarray) else a for a in args])))


def flat(value: Any) -> list[Any]:
    return [leaf for v in value for leaf in flat(v)] if isinstance(value, tuple | list) else [value]


def assert_same(ours: Any, theirs: Any) -> None:
    for mine, numpys in zip(flat(ours), flat(theirs), strict=True):
        if numpys is None:
            assert mine is None
            continue
        mine, numpys = np.asarray(mine), np.asarray(numpys)
        assert mine.shape == numpys.shape and mine.dtype == numpys.dtype
        assert np.allclose(mine, numpys, rtol=1e-12, atol=1e-12)


def converted(a, b):
    return (
        np.int64(a),
        np.float32(a > 0),
        np.float64(a),
        float64(a + b),
        np.bool_(a),
        np.int32(np.sum(a)),
        np.int64(2.5),
    )


def told_by_type(a, b):
    """A scalar type is a dtype, too."""
    kinds = np.float64, float64, np.int64
    told = [[a.dtype == k, np.dtype(k).itemsize, np.issubdtype(a.dtype, k)] for k in kinds]
    held = [isinstance(np.float64(1.0), k) for k in kinds], [issubclass(k, np.floating) for k in kinds]
    return np.array(told), np.array(held), a.astype(np.float32), np.zeros(3, dtype=float64), np.asarray(b, np.float64)


@pytest.mark.parametrize(
    "code",
    [
        converted,
        told_by_type,
        subtracted,
        subtracted_in_place,
        subtracted_at,
        divided_with_remainder,
        put_in_row,
        put_at_list,
        put_at_places,
        put_at_mask,
        places_of_extremes,
    ],
    ids=lambda code: code.__name__,
)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("row", ROWS)
def test_mixed_dtypes_as_in_numpy(code, row, other):
    if code is divided_with_remainder and (row == "bool" or other in ("bool", "flag")):
        return  # by 0, or in int8
    if code is subtracted_at and row.startswith("int") and other in ("float64", "number", "scalar", "list of floats"):
        return  # NumPy rounds each difference
    a, b = ROWS[row], OTHERS[other]
    try:
        expected = code(a.copy(), b)
    except TypeError:
        return  # NumPy refuses, as it does two masks
    assert_same(on_torch(code, a, b), expected)


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (3, 1)])
def test_small_and_empty_shapes(shape):
    a = np.arange(float(np.prod(shape))).reshape(shape) - 1
    for code in (subtracted, divided_with_remainder):
        assert_same(on_torch(code, a, np.full(shape, 2)), code(a.copy(), np.full(shape, 2)))


def test_a_single_place_from_divmod_is_an_index():
    def code(x):
        dx = np.zeros_like(x)
        i, j = divmod(x.argmax(), 3)
        dx[i, j] += 1
        dx[x.argmin() // 3, x.argmin() % 3] -= x[i, j]
        return dx

    x = np.random.default_rng(4).standard_normal((5, 3))
    assert_same(on_torch(code, x), code(x))
    assert isinstance(divmod(7, Array(torch.tensor(3)))[0], Array)


@pytest.mark.parametrize("program", programs("numpy_"), ids=lambda program: program.name)
def test_the_corpus_computes_as_in_numpy(program: Program, tmp_path: Path) -> None:
    for planted in program.cases():
        if planted.kind == "mistake":
            continue
        code, args, given = subject(planted.load(tmp_path))
        forward = given.get("forward")

        def both(*args: Any, forward: Any = forward, code: Any = code) -> Any:
            if forward is None:
                return code(*args)
            out, cache = forward(*args)
            dout = np.cos(np.arange(float(np.prod(out.shape)))).reshape(tuple(out.shape))
            return out, code(dout if isinstance(out, np.ndarray) else as_arrays(dout), cache)

        expected = both(*(np.copy(a) for a in args))
        with numpy_as_torch(*(f for f in (forward, code) if f is not None)):
            found = as_tensors(both(*as_arrays([np.copy(a) for a in args])))
        assert_same(found, expected)
