"""What a run changes outside of itself is undone before the next one, and `check` leaves nothing of its reruns behind."""

from __future__ import annotations

import array
import collections
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_check import program, rand

import chainrule as cr
from chainrule.diagnosis.reading.state import State


class Slots:
    __slots__ = ("count", "late")

    def __init__(self) -> None:
        self.count = 0


class Counted:
    count = 0

    @property
    def size(self) -> int:
        return len(held["list"])


held: dict[str, Any] = {
    "list": [1],
    "set": {1},
    "deque": collections.deque([1], maxlen=3),
    "bytearray": bytearray(b"a"),
    "array.array": array.array("d", [1.0]),
    "numpy": np.ones(3),
    "objects in an array": np.array([[1], None], dtype=object),
    "slots": Slots(),
    "dict in a tuple": ({"a": 1},),
    "default": collections.defaultdict(list, {"a": [1]}),
    "subclass": type("Rows", (list,), {})([1]),
}
number = 0
bound = torch.ones(3)


def bind() -> None:
    global number, bound, made
    number += 1
    bound = bound * 2
    made = 1


def delete() -> None:
    global number
    del number


def fill_slot() -> None:
    held["slots"].count += 1
    held["slots"].late = 1


def attribute() -> None:
    attribute.calls = getattr(attribute, "calls", 0) + 1  # type: ignore[attr-defined]


def count_in_class() -> None:
    Counted.count += 1
    Counted.other = 1  # type: ignore[attr-defined]


def subclass() -> None:
    held["subclass"].append(2)
    held["subclass"].name = "rows"


def through_property() -> None:
    held["list"].append(Counted().size)


def keyword_default(*, calls: list[int] = []) -> None:  # noqa: B006
    calls.append(1)


def nested() -> Callable[[], None]:
    count, unset = 0, 0
    del unset

    def run() -> None:
        nonlocal count, unset
        count += 1
        unset = 1

    return run


def cells(function: Any) -> list[Any]:
    def content(cell: Any) -> Any:
        try:
            return cell.cell_contents
        except ValueError:
            return "unset"

    return [content(c) for c in getattr(function, "__closure__", None) or ()]


def seen(function: Any) -> list[Any]:
    """All that the functions below change."""
    slots, rows = held["slots"], held["subclass"]
    of_functions = [cells(function), vars(attribute).copy(), keyword_default.__kwdefaults__]
    of_globals = [globals().get("number", "none"), bound.tolist(), "made" in globals()]
    of_classes = [Counted.count, hasattr(Counted, "other"), slots.count, hasattr(slots, "late"), vars(rows).copy()]
    return [repr(held).split("<test_state")[0], repr(held["default"]), repr(held["numpy"]), rows[:]] + [
        repr(part) for part in (of_functions, of_globals, of_classes, held["deque"], held["dict in a tuple"])
    ]


CHANGES: dict[str, Callable[[], Any]] = {
    "globals": bind,
    "a deleted global": delete,
    "what is closed over": nested(),
    "a list": lambda: held["list"].append(2),
    "a set": lambda: held["set"].add(2),
    "a deque": lambda: held["deque"].extend([2, 3, 4]),
    "a bytearray": lambda: held["bytearray"].extend(b"b"),
    "an array of Python": lambda: held["array.array"].append(2.0),
    "an array of NumPy": lambda: held["numpy"].__imul__(2),
    "objects in an array": lambda: held["objects in an array"][0].append(2),
    "slots": fill_slot,
    "a dict in a tuple": lambda: held["dict in a tuple"][0].clear(),
    "a dict with defaults": lambda: held["default"]["b"].append(1),
    "a list with attributes": subclass,
    "attributes of a class": count_in_class,
    "attributes of a function": attribute,
    "what a property reads": through_property,
    "defaults by keyword": keyword_default,
    "a partial function": functools.partial(lambda rows: rows.append(2), held["list"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_undone_each_time(name: str) -> None:
    change = CHANGES[name]
    before = seen(change)
    state = State([change])
    for _ in range(2):
        change()
        assert seen(change) != before
        state.restore()
        assert seen(change) == before


def test_large_globals_are_not_looked_through() -> None:
    rows = list(range(1_000_000))
    table = {i: [i] for i in range(100_000)}

    def change() -> None:
        rows.append(1)
        table.clear()

    began = time.process_time()
    state = State([change])
    change()
    state.restore()
    assert len(rows) == 1_000_000 and table[5] == [5]
    assert time.process_time() - began < 2.0


STEP = """
    log, seen, moments, size = deque(), set(), np.zeros(3), Size()
    count, W = 0, torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def step(x, gamma):
        global count, W
        out = (x @ W) * gamma
        loss = out.exp().sum()
        out.g = out.exp()
        gamma.g = (out.g * (x @ W)).sum(0)
        W.g = x.T @ {gradient}
        W = W - 0.1 * W.g
        count += 1
        log.append(count)
        seen.add(count)
        moments[:] += 1
        size.count += 1
        return loss
"""


@pytest.mark.parametrize("gradient", ["out.g", "(out.g * gamma)"])
def test_check_leaves_one_run_behind(gradient: str) -> None:
    """Of the runs with another gamma nothing is left, whether they show a mistake or none is suspected."""
    step = program(STEP.format(gradient=gradient), deque=collections.deque, np=np, Size=Slots)
    x, space = rand(5, 4), step.__globals__
    start = space["W"]
    report = cr.check(step, x, torch.ones(3))
    assert bool(report.findings) == (gradient == "out.g")
    left = [space["count"], list(space["log"]), space["seen"], space["moments"].tolist(), space["size"].count]
    assert left == [1, [1], {1}, [1.0] * 3, 1]
    expected = x.T @ (x @ start).exp()
    assert torch.allclose(space["W"], start - 0.1 * expected)


class Dropped:
    def forward(self, x: Any) -> Any:
        self.mask = np.random.rand(*x.shape) < 0.5
        return x * self.mask

    def backward(self, dout: Any) -> Any:
        return dout * self.mask


class Shifted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:  # type: ignore[override]
        ctx.mark_dirty(x)
        return x.mul_(2).add_(y)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:  # type: ignore[override]
        return 2 * g, g


def logged(x: Any, w: Any) -> Any:
    global number
    held["list"].append(w)
    number = w
    loss = (w * x - 1) ** 2
    logged.last = loss  # type: ignore[attr-defined]
    dw = 2 * (w * x - 1) * x
    return loss, dw


def test_no_array_of_ours_is_left_behind() -> None:
    layer, drawn = Dropped(), np.random.get_state()[1].tolist()  # type: ignore[union-attr, index]
    assert cr.check(layer, np.ones((4, 3))).ok
    assert vars(layer) == {}
    assert np.random.get_state()[1].tolist() == drawn  # type: ignore[union-attr, index]
    before = seen(logged)
    for inputs in ((0.5, 0.3), (np.ones(()), np.ones(()))):
        assert cr.check(logged, *inputs).ok
        assert seen(logged) == before and not vars(logged)


def test_a_function_that_writes_into_its_argument_leaves_it_as_it_was() -> None:
    x = torch.tensor([1.0, 2.0])
    assert cr.check(Shifted, x, torch.ones(2)).ok
    assert x.tolist() == [1.0, 2.0]
