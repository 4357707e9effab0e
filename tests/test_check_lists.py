"""`check`: layers that keep their gradients in a list beside the list of their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from of_source import of_source

import chainrule as cr
from chainrule.diagnosis.report import Report

LAYERS = """\
import numpy as np


class Affine:
    def __init__(self, W, b):
        self.params, self.grads = [W, b], [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        W, b = self.params
        self.x = x
        return np.dot(x, W) + b

    def backward(self, dout):
        W, b = self.params
        dx = np.dot(dout, W.T)
        dW = np.dot(self.x.T, dout)
        db = np.sum(dout, axis=0)
        self.grads[0][...] = dW
        self.grads[1][...] = db
        return dx


class Sigmoid:
    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        dx = dout * (1.0 - self.out) * self.out
        return dx


class SoftmaxWithLoss:
    def forward(self, x, t):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.y, self.t = e / e.sum(axis=1, keepdims=True), t
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def backward(self, dout=1):
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        dx *= dout
        dx = dx / len(self.t)
        return dx


class TwoLayerNet:
    def __init__(self, n, h, m):
        r = np.random.RandomState(0)
        self.layers = [Affine(r.randn(n, h), np.zeros(h)), Sigmoid(), Affine(r.randn(h, m), np.zeros(m))]
        self.loss_layer = SoftmaxWithLoss()
        self.params, self.grads = [], []
        for layer in self.layers:
            self.params += layer.params
            self.grads += layer.grads

    def forward(self, x, t):
        for layer in self.layers:
            x = layer.forward(x)
        return self.loss_layer.forward(x, t)

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


def step(net, x, t):
    loss = net.forward(x, t)
    net.backward()
    return loss


class Embedding:
    def __init__(self, W):
        self.params, self.grads = [W], [np.zeros_like(W)]

    def forward(self, idx):
        W, = self.params
        self.idx = idx
        return W[idx]

    def backward(self, dout):
        dW, = self.grads
        dW[...] = 0
        np.add.at(dW, self.idx, dout)
"""


def space(*changes: tuple[str, str]) -> dict[str, Any]:
    text = LAYERS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return of_source(text)


def data(width: int = 5) -> tuple[Any, Any]:
    r = np.random.RandomState(1)
    return r.randn(6, width), r.randint(0, 3, 6)


def net(*changes: tuple[str, str], sizes: tuple[int, int, int] = (5, 4, 3)) -> Report:
    return cr.check(space(*changes)["TwoLayerNet"](*sizes), *data(sizes[0]))


def affine(*changes: tuple[str, str]) -> Report:
    r = np.random.RandomState(0)
    return cr.check(space(*changes)["Affine"](r.randn(5, 3), r.randn(3)), data()[0])


def names(report: Report) -> set[str]:
    return {row.name for row in report.rows}


def test_a_layer_is_right() -> None:
    report = affine()
    assert report.ok and names(report) == {"x", "params.0", "params.1"}, str(report)


def test_a_net_is_right_and_so_is_a_step_of_it() -> None:
    every = {f"params.{i}" for i in range(4)}
    report = net()
    assert report.ok and names(report) == {"x", *every}, str(report)
    made = space()
    report = cr.check(made["step"], made["TwoLayerNet"](5, 4, 3), *data())
    assert report.ok and names(report) == {f"net.{name}" for name in every}, str(report)


WRITES = ("self.grads[0][...] = dW", "self.grads[1][...] = db")
COLLECTED = (
    "            dout = layer.backward(dout)\n        return dout",
    "            dout = layer.backward(dout)\n        self.grads = GRADS\n        return dout",
)


@pytest.mark.parametrize("sizes", [(5, 4, 3), (4, 4, 4)])
@pytest.mark.parametrize(
    "grads",
    [
        "[g for layer in self.layers for g in layer.grads]",
        "[g for layer in self.layers[::-1] for g in layer.grads]",
        "self.grads[::-1]",
    ],
)
def test_a_list_may_begin_with_the_last_layer(grads: str, sizes: tuple[int, int, int]) -> None:
    report = net((COLLECTED[0], COLLECTED[1].replace("GRADS", grads)), sizes=sizes)
    assert report.ok and len(report.rows) == 5, str(report)


@pytest.mark.parametrize("write", ["{} += {}", "{}[...] += {}", "{}[:] = {}"])
def test_other_ways_to_write(write: str) -> None:
    report = net(*((old, write.format(old[:13], old[-2:])) for old in WRITES))
    assert report.ok and len(report.rows) == 5, str(report)


def test_momentum_is_no_parameter() -> None:
    report = net(
        (
            "self.params, self.grads = [], []\n        for",
            "self.params, self.grads, self.v = [], [], None\n        for",
        ),
        ("self.grads += layer.grads", "self.grads += layer.grads\n        self.v = [0 * p for p in self.params]"),
    )
    assert report.ok and len(report.rows) == 5, str(report)


WRONG = [  # what stands there, what should, and the cause
    ("db = np.sum(dout, axis=0)", "db = np.mean(dout, axis=0)", "wrong-scale", "db = dout.sum(axis=0)"),
    ("self.grads[1][...] = db", "self.grads[1][...] = -db", "sign", "self.grads[1][...] = db"),
    ("self.grads[0][...] = dW", "self.grads[0][...] = 2 * dW", "wrong-scale", "self.grads[0][...] = dW"),
    ("dx = np.dot(dout, W.T)", "dx = -np.dot(dout, W.T)", "sign", "dx = np.dot(dout, W.T)"),
    ("dx = dout * (1.0 - self.out) * self.out", "dx = dout * (1.0 - self.out)", "missing-factor", None),
]


@pytest.mark.parametrize(("right", "wrong", "cause", "repair"), WRONG, ids=lambda text: str(text)[:40])
def test_a_mistake_in_a_net_is_found_on_its_line(right: str, wrong: str, cause: str, repair: str | None) -> None:
    (found,) = net((right, wrong)).findings
    line = LAYERS.replace(right, wrong)[: LAYERS.index(right)].count("\n") + 1
    assert (found.line, found.cause, found.proved) == (line, cause, True), str(found)
    assert repair is None or found.repair == repair, str(found)


def test_what_a_logarithm_is_kept_finite_by_hides_no_cause() -> None:
    (found,) = net(("        dx = dx / len(self.t)\n", "")).findings
    assert found.cause == "wrong-scale" and found.proved, str(found)


@pytest.mark.parametrize("write", WRITES)
def test_a_gradient_that_is_not_written_is_missing(write: str) -> None:
    report = affine((write, "pass"))
    assert [(f.cause, f.name) for f in report.findings] == [("missing-gradient", f"params.{write[11]}")], str(report)
    assert {f.cause for f in net((write, "pass")).findings} == {"missing-gradient"}


def test_a_gradient_of_another_shape_is_wrong() -> None:
    report = affine((WRITES[0], "pass"), (WRITES[1], "self.grads = [dW, dout]"))
    assert [(f.cause, f.name) for f in report.findings] == [("missing-broadcast-sum", "params.1")], str(report)


def test_a_list_that_the_layers_left_behind_is_named() -> None:
    report = net(*((old, old.replace("[...]", "")) for old in WRITES))
    assert report.ok and any("nothing was written into self.grads" in note for note in report.notes), str(report)
    assert not any("nothing was written" in note for note in net().notes)


def test_a_list_of_one() -> None:
    weights, rows = np.random.RandomState(0).randn(7, 3), np.array([1, 3, 3, 0])
    report = cr.check(space()["Embedding"](weights), rows)
    assert report.ok and names(report) == {"params.0"}, str(report)
    wrong = space(("np.add.at(dW, self.idx, dout)", "dW[self.idx] = dout"))
    (found,) = cr.check(wrong["Embedding"](weights), rows).findings
    assert found.cause == "index-overwrite" and found.repair == "np.add.at(dW, self.idx, dout)", str(found)
