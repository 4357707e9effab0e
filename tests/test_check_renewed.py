"""`check`: parameters that are changed before they are used, decayed or clipped: their gradients are looked at, too."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_check import program, rand
from test_forms import module, n

import chainrule as cr

CHANGES = [
    "W *= 0.5",
    "np.clip(W, -1, 1, out=W)",
    "W[0] = 0",
    "W -= W.mean(0)",
    "W = W / np.linalg.norm(W)",
    "W = np.clip(W, -1, 1)",
]
OBJECT = """\
    import numpy as np

    class Net:
        def __init__(self):
            self.W = np.random.default_rng(0).normal(size=(3, 2))
            self.b = np.zeros(2)

        def loss(self, x, y):
            CHANGE
            self.x = x
            out = x @ self.W + self.b
            diff = out - y
            loss = (diff ** 2).sum()
            dout = 2 * diff
            LEFT
            self.W -= 0.1 * LEFT_W
            return loss

        def forward(self, x):
            CHANGE
            self.x = x
            return x @ self.W + self.b

        def backward(self, dout):
            LEFT
            return dout @ self.W.T

    net = Net()

    def step(x, y):
        return net.loss(x, y)
"""
LEFT = {
    "self.dW": "self.dW = self.x.T @ dout; self.db = dout.sum(0)",
    'self.grads["W"]': 'self.grads = {"W": self.x.T @ dout, "b": dout.sum(0)}',
}


def made(folder: Path, change: str, left: str, stepped: bool, wrong: str = "") -> Any:
    text = textwrap.dedent(OBJECT if stepped else OBJECT.replace("self.W -= 0.1 * LEFT_W", "pass"))
    text = text.replace("CHANGE", change.replace("W", "self.W")).replace("LEFT_W", left).replace("LEFT", LEFT[left])
    return module(folder, text.replace("self.x.T", f"{wrong}self.x.T"))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("left", LEFT)
def test_of_an_object(tmp_path: Path, change: str, left: str) -> None:
    for stepped in (False, True):
        report = cr.check(made(tmp_path, change, left, stepped).step, n(5, 3), n(5, 2))
        assert report.ok and {row.name for row in report.rows} >= {"net.W", "net.b"}, str(report)
        report = cr.check(made(tmp_path, change, left, stepped, "2 * ").step, n(5, 3), n(5, 2))
        assert [(f.name, f.cause) for f in report.findings] == [("net.W", "wrong-scale")], str(report)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("left", LEFT)
def test_of_a_layer(tmp_path: Path, change: str, left: str) -> None:
    assert cr.check(made(tmp_path, change, left, False).Net, n(5, 3)).ok
    report = cr.check(made(tmp_path, change, left, False, "2 * ").Net, n(5, 3))
    assert [(f.name, f.cause) for f in report.findings] == [("W", "wrong-scale")], str(report)


RETURNED = """\
    def step(x, W, b, y):
        CHANGE
        out = x @ W + b
        diff = out - y
        loss = (diff ** 2).sum()
        dout = 2 * diff
        dW = x.T @ dout
        db = dout.sum(0)
        return loss, dW, db
"""


@pytest.mark.parametrize("change", CHANGES[:4])
def test_of_an_argument(change: str) -> None:
    """What the array holds then is what the gradient may be of; that is said."""
    inputs = n(5, 3), n(3, 2, seed=1), n(2), n(5, 2)
    text = RETURNED.replace("CHANGE", change)
    report = cr.check(program(text, np=np), *inputs)
    assert report.ok and any("after it was changed in place" in note for note in report.notes), str(report)
    assert not cr.check(program(text.replace("x.T", "2 * x.T"), np=np), *inputs).ok


def test_the_gradient_of_what_it_was_is_right() -> None:
    text = RETURNED.replace("CHANGE", "W *= 0.5").replace("x.T @", "0.5 * x.T @")
    report = cr.check(program(text, np=np), n(5, 3), n(3, 2, seed=1), n(2), n(5, 2))
    assert report.ok and not any("in place" in note for note in report.notes), str(report)


def test_a_value_that_is_bound_anew_is_none_of_the_argument() -> None:
    text = RETURNED.replace("CHANGE", "W = W - W.mean(0)")
    assert not cr.check(program(text, np=np), n(5, 3), n(3, 2, seed=1), n(2), n(5, 2)).ok


def test_under_no_grad() -> None:
    text = RETURNED.replace("CHANGE", "with torch.no_grad(): W *= 0.5")
    inputs = rand(5, 3), rand(3, 2, seed=1), rand(2), rand(5, 2)
    assert cr.check(program(text), *map(torch.clone, inputs)).ok
    assert not cr.check(program(text.replace("x.T", "2 * x.T")), *map(torch.clone, inputs)).ok
