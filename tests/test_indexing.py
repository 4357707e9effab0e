"""Random indices into random shapes, read and written, against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from agreement import Leaves, assert_close, run_emitted
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import chainrule as cr

EXAMPLES = 150
often = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                 suppress_health_check=list(HealthCheck))  # fmt: skip


def assert_right(function: Callable[..., Tensor], *arguments: Tensor) -> None:
    """Derived and emitted gradients are autograd's, without an autograd step."""
    with torch.no_grad():
        expected = function(*arguments)
    upstream = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    d = cr.derive(function, *arguments, upstream=upstream)
    assert d.fallbacks == []
    assert_close(d.output, expected, 1e-12)
    with Leaves(d) as leaves:
        truth = dict(zip(leaves.names, leaves.gradients(function(*arguments), upstream), strict=True))
    inputs = [d[name].value.clone() for name in d.inputs]
    output, emitted = run_emitted(d, *inputs, upstream.clone())
    assert_close(output, expected, 1e-12)
    for name, gradient in truth.items():
        assert_close(d.grads[name], gradient)
        assert_close(emitted[name], gradient)


@st.composite
def shapes_and_indices(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    """A shape, and what may stand in the brackets of a tensor of that shape."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 3, 4]), min_size=1, max_size=4)))
    length = draw(st.integers(1, 3))  # of the lists and tensors of indices, which must agree
    kinds = draw(st.sampled_from(["plain", "tensors", "everything"]))
    index: list[Any] = []
    axis, skipped = 0, False
    while axis < len(shape):
        kind = draw(st.sampled_from(KINDS[kinds]))
        if kind == "end":
            break
        if kind == "...":
            if not skipped:
                index.append(...)
                axis += draw(st.integers(0, len(shape) - axis))
                skipped = True
            continue
        entry, used = draw(entries(kind, shape[axis:], length))
        index.append(entry)
        axis += used
    if len(index) == 1 and draw(st.booleans()):
        return shape, index[0]
    return shape, tuple(index)


PLAIN = ["int", "slice", "slice", ":", ":", "None", "...", "end"]
TENSORS = ["tensor", "tensor", "list", "mask"]
KINDS = {
    "plain": PLAIN,
    "tensors": [":", ":", "slice", *TENSORS],
    "everything": [*PLAIN, *TENSORS, "numpy", "range", "number tensor", "masks", "bool", "numpy int"],
}


@st.composite
def entries(draw: st.DrawFn, kind: str, sizes: tuple[int, ...], length: int) -> tuple[Any, int]:
    """One entry of an index, and how many axes it uses up."""
    size = sizes[0]
    place = st.integers(-size, size - 1)
    ends = st.none() | st.integers(-size - 1, size + 1)
    if kind == "masks":
        mask = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        if len(sizes) > 1:
            return mask[:, None] & (torch.arange(sizes[1]) != 1), 2
        return mask, 1
    if kind == "mask":
        return torch.arange(size) < draw(st.sampled_from([length, length, 1, size])), 1
    if kind in ("tensor", "list", "numpy"):
        places = draw(st.lists(place, min_size=length, max_size=length))
        if kind != "tensor":
            return places if kind == "list" else np.array(places), 1
        found = torch.tensor(places)
        return draw(st.sampled_from([found, found, found[:1], found[None].expand(2, -1), found[:, None]])), 1
    return {
        "int": lambda: draw(place),
        "numpy int": lambda: np.int64(draw(place)),
        "number tensor": lambda: torch.tensor(draw(place)),
        "slice": lambda: slice(draw(ends), draw(ends), draw(st.sampled_from([None, None, 1, 2]))),
        ":": lambda: slice(None),
        "range": lambda: range(min(size, length)),
        "None": lambda: None,
        "bool": lambda: draw(st.sampled_from([True, True, False, torch.tensor(True)])),
    }[kind](), 0 if kind in ("None", "bool") else 1


def picked(shape: tuple[int, ...], index: Any) -> tuple[Tensor, Tensor]:
    """A tensor of that shape and what the index picks from it; the example is passed over where torch refuses."""
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    try:
        return x, x[index].clone()
    except (IndexError, RuntimeError, TypeError):
        assume(False)
        raise


@often
@given(shapes_and_indices())
def test_reading(drawn: tuple[tuple[int, ...], Any]) -> None:
    shape, index = drawn
    x, _ = picked(shape, index)
    assert_right(lambda x: x[index].exp(), x)


@often
@given(shapes_and_indices(), st.sampled_from(["all", "one", "last axis", "leading one", "number"]))
def test_writing(drawn: tuple[tuple[int, ...], Any], kind: str) -> None:
    shape, index = drawn
    x, place = picked(shape, index)
    values = {
        "all": place.cos(),
        "one": torch.tensor(0.5, dtype=torch.float64),
        "last axis": (place if place.ndim < 2 else place[(0,) * (place.ndim - 1)] if place.numel() else place).cos(),
        "leading one": place[None].cos(),
    }

    def written(x: Tensor, value: Any) -> Tensor:
        y = x.clone()
        y[index] = value
        return y.exp() + x.sin()

    try:
        written(x, values.get(kind, 2.0))
    except RuntimeError:  # a mask with no true element in it, for one, takes no value with a leading axis
        assume(False)
    if kind == "number":
        assert_right(lambda x: written(x, 2.0), x)
    else:
        assert_right(written, x, values[kind])


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.parametrize("index", [[[0, 1], [1, 2]], [0, slice(None)], [torch.tensor(0), 1], [[0, 1], None], [], ()])
def test_a_list_may_stand_for_a_tuple(index: Any) -> None:
    x, _ = picked((3, 4), index)
    assert_right(lambda x: x[index].exp(), x)


@pytest.mark.parametrize(
    "index", [np.array([[0, 1], [1, 2]]), (np.array([[0, 1], [1, 2]]), 0), np.array([True, False, True]), np.array(1)]
)
def test_an_array_of_numpy_is_written_out(index: Any) -> None:
    x, _ = picked((3, 4), index)
    assert_right(lambda x: x[index].exp(), x)


def test_a_slice_may_end_at_a_tensor() -> None:
    start = torch.tensor(1)
    assert_right(lambda x: x[start : start + 2].exp(), torch.randn(5, 2, dtype=torch.float64))
