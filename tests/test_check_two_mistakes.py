"""Two mistakes, one above the other: the repair of each is proved, with the other's made where it needs that."""

from __future__ import annotations

import numpy as np
from of_source import of_source

import chainrule as cr
from chainrule.diagnosis.report import Report

LAYERS = """
import numpy as np


class Dense:
    def __init__(self, w):
        self.w = w
        self.b = np.zeros(w.shape[1])

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.dw = self.x.T @ dout
        self.db = dout.BIAS(axis=0)
        return dout @ self.w.T


class Pool:
    def forward(self, x):
        n, d = x.shape
        return x.reshape(n, d // 2, 2).mean(axis=2)

    def backward(self, dout):
        return dout.repeat(2, axis=1) / 2


r = np.random.RandomState(0)
"""

DECAYED = """
class Net:
    def __init__(self):
        self.first, self.second = Dense(r.randn(3, 4)), Dense(r.randn(4, 2))
        self.decay = 0.02

    def loss(self, x, t):
        h = np.tanh(self.first.forward(x))
        e = self.second.forward(h) - t
        squares = (self.first.w**2).sum() + (self.second.w**2).sum()
        loss = (e**2).sum() / x.shape[0] + 0.5 * self.decay * squares
        dh = self.second.backward(2 * e)
        self.first.backward(dh * (1 - h**2))
        self.first.dw += self.decay * self.first.w
        self.second.dw -= self.decay * self.second.w
        return loss


step = Net().loss
"""

POOLED = """
dense, pool = Dense(r.randn(3, 4)), Pool()


def step(x, t):
    a = dense.forward(x)
    h = np.maximum(a, 0)
    y = pool.forward(h)
    e = y - t
    loss = (e**2).sum() / x.shape[0]
    dy = e / x.shape[0]
    dh = pool.backward(dy)
    da = dh
    dx = dense.backward(da)
    return loss, {"x": dx}
"""


def checked(text: str) -> Report:
    space = of_source(text)
    r = np.random.RandomState(1)
    return cr.check(space["step"], r.randn(5, 3), r.randn(5, 2))


def mended(text: str) -> dict[str, str]:
    """The repairs, all proved, by the lines that they replace; with all of them made, everything is right."""
    report, lines = checked(text), text.splitlines()
    assert all(f.proved and f.edit is not None for f in report.findings), str(report)
    found = {f.text: f.repair for f in report.findings}
    for finding in report.findings:
        lines = finding.edit.applied(lines) if finding.edit is not None else lines
    assert checked("\n".join(lines) + "\n").ok
    return found


def test_a_sign_below_a_scale() -> None:
    found = mended(LAYERS.replace("BIAS", "mean") + DECAYED)
    assert found["self.second.dw -= self.decay * self.second.w"] == "self.second.dw += self.decay * self.second.w"


def test_a_scale_above_a_lost_mask() -> None:
    found = mended(LAYERS.replace("BIAS", "sum") + POOLED)
    assert found["da = dh"] == "da = dh * (a >= 0)"
    assert found["dy = e / x.shape[0]"].startswith("dy = 2 * ")
