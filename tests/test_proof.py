"""What counts as the proof of a repair: more is right with it, and nothing has become wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_check import line_of, program, rand

from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading.handwritten import Asked
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.repairing.proof import repaired
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case


def proved(text: str, old: str, new: str, *args: Any) -> set[str]:
    """The gradients that are right by themselves with the line `old` written as `new`."""
    step = program(text)
    line = line_of(text, old)
    edit = Edit(step.__code__.co_filename, line, line, tuple("    " + part for part in new.split("; ")))

    def again() -> Any:
        return run_handwritten(Asked(step, args, {}))

    found = repaired(edit, step.__code__, again, Located(Case(again())))
    return set(found.names) if found.told else set()


CLAIMED = """
def step(x, w, b, v, t):
    h = torch.tanh(x @ w + b)
    y = h @ v
    loss = ((y - t) ** 2).sum()
    y.g = 2 * (y - t)
    v.g = y.g.T @ h
    h.g = y.g @ v
    b.g = h.g * (1 - h * h)
    w.g = x.T @ (h.g * (1 - h * h)) / 3
    return loss
"""


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("v.g = y.g.T @ h", "v.g = h.T @ y.g", {"v"}),  # whatever else is wrong
        ("h.g = y.g @ v", "h.g = y.g @ v.T", {"h"}),
        ("b.g = h.g * (1 - h * h)", "b.g = (h.g * (1 - h * h)).sum(0)", {"b"}),  # given h.g, which is wrong still
        ("w.g = x.T @ (h.g * (1 - h * h)) / 3", "w.g = x.T @ (h.g * (1 - h * h))", {"w"}),
        ("v.g = y.g.T @ h", "v.g = h.T @ y.g; y.g = 3 * (y - t)", set()),  # y.g has become wrong
        ("v.g = y.g.T @ h", "v.g = 2 * y.g.T @ h", set()),
    ],
)
def test_a_line_is_right_by_itself_and_no_other_has_become_wrong(old: str, new: str, right: set[str]) -> None:
    square = [rand(4, 4, seed=i, dtype=torch.float64) for i in range(4)]
    args = square[0], square[1], square[0][0], *square[2:]
    assert proved(CLAIMED, old, new, *args) == right


GUESSED = """
def step(x, w, v, t):
    h = torch.tanh(x @ w)
    e = h @ v - t
    loss = (e**2).sum()
    dy = 2 * e
    dh = dy @ v
    dv = h.T @ dy
    dw = x.T @ (dh * (1 - h * h))
    return loss, dw, dv
"""


@pytest.mark.parametrize(
    ("old", "new", "right"),
    [
        ("dh = dy @ v", "dh = dy @ v.T", {"h"}),
        ("dw = x.T @ (dh * (1 - h * h))", "dw = x.T @ (dh * (1 - h * h)); dh = dy @ v.T", set()),  # which nothing reads
        ("dh = dy @ v", "dh = dy @ v.T; dv = h.T @ dy; dy = 2 * dy", set()),
    ],
)
def test_what_is_right_on_the_way_must_make_right_what_it_is_for(old: str, new: str, right: set[str]) -> None:
    square = [rand(4, 4, seed=i, dtype=torch.float64) for i in range(4)]
    assert proved(GUESSED, old, new, *square) == right
