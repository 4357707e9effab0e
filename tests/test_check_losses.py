"""`check`: the loss of code that drops it, where a function that it calls returns it; a loss that is no array."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source
from test_check import program

import chainrule as cr

NET = """\
import {module} as np


class Net:
    def __init__(self, w, b):
        self.params = {{"w": w, "b": b}}

    def predict(self, x):
        return x @ self.params["w"] + self.params["b"]

    def loss(self, x, t):
        y = self.predict(x)
        {loss}

    def accuracy(self, x, t):
        return ((self.predict(x) > 0) == (t > 0)).sum() / len(t)

    def gradient(self, x, t):
        {call}
        dy = 2 * (self.predict(x) - t) / len(t)
        return {{"w": x.T @ dy, "b": dy.sum(0)}}
"""
DIRECT, NAMED = "return ((y - t) ** 2).sum() / len(t)", "found = ((y - t) ** 2).sum() / len(t); return found"
_files = itertools.count()


def net(module: str = "numpy", loss: str = DIRECT, call: str = "self.loss(x, t)", text: str = NET) -> Any:
    space = of_source(text.format(module=module, loss=loss, call=call))
    r = np.random.RandomState(0)
    values = r.randn(4, 3), r.randn(3), r.randn(6, 4), r.randn(6, 3)
    w, b, x, t = values if module == "numpy" else map(torch.tensor, values)
    return space["Net"](w, b), x, t


@pytest.mark.parametrize("module", ["numpy", "torch"])
@pytest.mark.parametrize("loss", [DIRECT, NAMED])
@pytest.mark.parametrize(
    "call",
    ["self.loss(x, t)", "value = self.loss(x, t)", "self.loss(x, t); self.accuracy(x, t)", "self.loss(x, t) < 9"],
)
def test_a_loss_that_is_dropped(module: str, loss: str, call: str) -> None:
    made, x, t = net(module, loss, call)
    report = cr.check(made.gradient, x, t)
    assert report.ok and {row.name for row in report.rows} == {"params.w", "params.b"}, str(report)
    made, x, t = net(module, loss, call, NET.replace("dy.sum(0)", "dy.mean(0)"))
    (finding,) = cr.check(made.gradient, x, t).findings
    assert finding.cause == "wrong-scale" and finding.name == "params.b"


@pytest.mark.parametrize(
    "call",
    [
        "pass",
        "self.loss(x, t); self.loss(x, -t)",  # two
        "self.loss(x, t) * self.params['w'] * 2",  # something is computed from it
    ],
)
def test_no_loss_is_guessed(call: str) -> None:
    made, x, t = net(call=call)
    with pytest.raises(cr.ChainruleError, match="no loss was found in gradient"):
        cr.check(made.gradient, x, t)


def test_the_gradient_of_a_number_is_no_loss() -> None:
    text = NET.replace("def loss(self, x, t)", "def loss_grad(self, x, t)")
    made, x, t = net(call="self.loss_grad(x, t)", text=text)
    with pytest.raises(cr.ChainruleError, match="no loss was found in gradient"):
        cr.check(made.gradient, x, t)


BESIDE = """\
import numpy as np


def compute_cost(X, y, w, b):
    cost = 0.0
    for i in range(len(X)):
        cost = cost + (X[i] @ w + b - y[i]) ** 2
    return cost / (2 * len(X))


def compute_gradient(X, y, w, b):
    dj_dw = np.zeros(X.shape[1])
    dj_db = np.zeros(1)
    for i in range(len(X)):
        err = X[i] @ w + b - y[i]
        dj_dw = dj_dw + err * X[i]
        dj_db = dj_db + err
    dj_dw = dj_dw / len(X)
    dj_db = dj_db / len(X)
    return dj_db, dj_dw


def whole_cost(X, w):
    return ((X @ w) ** 2).sum()


def whole_gradient(X, w):
    out = X @ w
    cost = 3 * (out ** 2).sum()
    return cost, X.T @ (6 * out)
"""


def test_the_loss_that_stands_beside_its_gradient() -> None:
    def named(name: str, text: str = BESIDE) -> Any:
        space = of_source(text)
        return space[name]

    r = np.random.RandomState(0)
    args = r.randn(6, 4), r.randn(6), r.randn(4), r.randn(1)
    report = cr.check(named("compute_gradient"), *args)
    assert report.ok and {row.name for row in report.rows} == {"w", "b"}, str(report)
    wrong = BESIDE.replace("dj_dw = dj_dw / len(X)", "dj_dw = dj_dw")
    (finding,) = cr.check(named("compute_gradient", wrong), *args).findings
    assert (finding.name, finding.cause) == ("w", "wrong-scale"), str(finding)
    report = cr.check(named("whole_gradient"), r.randn(6, 4), r.randn(4))  # a step that returns its own loss
    assert report.ok and [row.name for row in report.rows] == ["w"], str(report)


PLAIN = {
    "made in the code": (
        "    w = 0.3\n    loss = (w * x - y) ** 2\n    return loss, 2 * (w * x - y) * x",
        (0.5, 1.0),
        "what it returns is the plain number 0.7225; give the parameters as arguments that are arrays",
    ),
    "a list of numbers": (
        "    e = sum(a * b for a, b in zip(x, y))\n    loss = e * e\n    return loss, [2 * e * b for b in y]",
        ([0.1, 0.2], [1.0, 2.0]),
        "is the plain number 0.25; give the parameters as arguments that are arrays, np.array",
    ),
    "a number taken of arrays": (
        "    loss = math.fsum(float(v) ** 2 for v in x @ y)\n    dy = 2 * x.T @ (x @ y)\n    return loss, dy",
        (np.ones((3, 2)), np.ones(2)),
        "its local `loss` is the plain number 12; compute it from them without",
    ),
    "a number that depends on nothing": (
        "    loss = 3\n    y.g = 2 * x.T @ (x @ y)",
        (torch.ones(3, 2), torch.ones(2)),
        "its local `loss` is the plain number 3; compute it from them without",
    ),
    "a count": (
        "    y.g = 2 * x.T @ (x @ y)\n    return 3",
        (torch.ones(3, 2), torch.ones(2)),
        "has no local tensor `loss`",
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_loss_that_is_a_plain_number_is_called_so(name: str) -> None:
    body, args, said = PLAIN[name]
    with pytest.raises(cr.ChainruleError) as error:
        cr.check(program(f"def step(x, y):\n{body}\n", np=np, math=math), *args)
    assert str(error.value).startswith("no loss was found in step") and said in str(error.value)
