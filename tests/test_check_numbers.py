"""`check`: repairs hold for other data too: numbers and sizes that happen to be equal here are told apart."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr
from chainrule.diagnosis.report import Report

RIDGE = """\
import numpy as np

def step(X, y, w, lam):
    m = len(y)
    e = X @ w - y
    loss = (e ** 2).sum() / (2 * m) + lam / (2 * m) * np.sum(w ** 2)
    dw = X.T @ e / m + lam / m * w
    return loss, dw
"""
LEAKY = """\
import torch

def step(x, w):
    h = x @ w
    a = torch.where(h > 0, h, 0.1 * h)
    loss = (a ** 2).sum()
    a.g = 2 * a
    h.g = torch.where(h > 0, a.g, 0.1 * a.g)
    w.g = x.T @ h.g
"""
CUBIC = """\
import torch

def step(x, w):
    h = x @ w
    u = h + 0.05 * h ** 3
    loss = torch.tanh(u).sum()
    u.g = 1 - torch.tanh(u) ** 2
    h.g = u.g * (1 + 0.05 * 3 * h ** 2)
    w.g = x.T @ h.g
"""
POOL = """\
import torch

def step(x, t):
    a = torch.relu(x)
    p = a.mean((2, 3))
    loss = ((p - t) ** 2).sum()
    p.g = 2 * (p - t)
    a.g = p.g[:, :, None, None].expand(a.shape) / (a.shape[2] * a.shape[3])
    x.g = a.g * (x > 0)
"""
HEAD = """\
import torch

class Head:
    def __init__(self, wq, wk):
        self.wq, self.wk, self.scale = wq, wk, wq.shape[1] ** -0.5

    def forward(self, x):
        self.x, self.q, self.k = x, x @ self.wq, x @ self.wk
        self.s = self.scale * (self.q @ self.k.mT)
        return self.s

    def backward(self, ds):
        dq = self.scale * (ds @ self.k)
        dk = self.scale * (ds.mT @ self.q)
        self.dwq = (self.x.mT @ dq).sum(0)
        self.dwk = (self.x.mT @ dk).sum(0)
        return dq @ self.wq.T + dk @ self.wk.T
"""
STEP = """\
import torch

def step(x, w, t):
    y = x @ w
    loss = ((y - t) ** 2).sum()
    y.g = 2 * (y - t)
    w.g = x.T @ y.g
    x.g = y.g @ w.T
    with torch.no_grad():
        w -= 0.1 * w.g
"""
SCALAR = """\
import torch

def step(x, w, t, log_t):
    sim = x @ w
    logits = log_t.exp() * sim
    loss = ((logits - t) ** 2).sum()
    dlogits = 2 * (logits - t)
    dsim = dlogits * log_t.exp()
    dw = x.T @ dsim
    dx = dsim @ w.T
    dlog_t = (dlogits * logits).sum()
    return loss, dx, dw, dlog_t
"""
TURNS = """\
import numpy as np

def step(xs, ts, w, b):
    ys, loss = [], 0.0
    for x, t in zip(xs, ts):
        ys.append(np.tanh(x @ w + b))
        loss = loss + ((ys[-1] - t) ** 2).sum()
    dw, db = np.zeros_like(w), np.zeros_like(b)
    for t in range(len(ys)):
        dz = 2 * (ys[t] - ts[t]) * (1 - ys[t] ** 2)
        dw += np.outer(xs[t], dz)
        db += dz
    return loss, dw, db
"""
HELPER = """\
import numpy as np

def sigmoid(x):
    return 1 / (1 + np.exp(-x))

def step(u, v):
    n, score = len(u), (u * v).sum(1)
    loss = -np.log(sigmoid(-score)).sum() / n
    dscore = sigmoid(score) / n
    du = dscore[:, None] * v
    dv = dscore[:, None] * u
    return loss, du, dv
"""
ROOT = """\
import math

def step(q, k, t):
    d_k = q.shape[1]
    s = q @ k.T / math.sqrt(d_k)
    loss = ((s - t) ** 2).sum()
    s.g = 2 * (s - t)
    q.g = s.g @ k / math.sqrt(d_k)
    k.g = s.g.T @ q / math.sqrt(d_k)
"""


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def arrays(*shapes: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    return [rand(*shape).numpy() for shape in shapes]


CASES: list[tuple[str, str, Any, str, str, str, str]] = [
    (RIDGE, "step", lambda: (*arrays((8, 3), (8,), (3,)), 0.3),
     "X.T @ e / m + lam / m * w", "X.T @ e / m", "lost-path", "dw = X.T @ e / m + lam * w / m"),
    (LEAKY, "step", lambda: (rand(10, 3), rand(3, 4)),
     "a.g, 0.1 * a.g)", "a.g, 0.01 * a.g)", "wrong-term-scale", "h.g = torch.where(h > 0, a.g, 0.1 * a.g)"),
    (CUBIC, "step", lambda: (rand(3, 5), rand(5, 3)),
     "0.05 * 3 * h", "0.05 * h", "wrong-term-scale", "h.g = u.g * (1 + 3 * 0.05 * h ** 2)"),
    (POOL, "step", lambda: (rand(3, 4, 2, 3), rand(3, 4)),
     "(a.shape[2] * a.shape[3])", "a.shape[2]", "wrong-scale", "a.g = p.g[:, :, None, None].expand(a.shape) / a.shape[2] / x.shape[3]"),
    (HEAD, "Head(rand(6, 4), rand(6, 4))", lambda: (rand(2, 5, 6),),
     "dq = self.scale * (ds @ self.k)", "dq = ds @ self.k", "wrong-scale", "dq = self.scale * (ds @ self.k)"),
    (STEP, "step", lambda: (rand(4, 3), rand(3, 2), rand(4, 2)),
     "    x.g = y.g @ w.T\n    with torch.no_grad():\n        w -= 0.1 * w.g\n",
     "    with torch.no_grad():\n        w -= 0.1 * w.g\n    x.g = y.g @ w.T\n",
     "stale-parameter", "x.g = y.g @ w.T\nwith torch.no_grad():\nw -= 0.1 * w.g"),
    (SCALAR, "step", lambda: (rand(5, 4), rand(4, 3), rand(5, 3), rand(1)[0]),
     "dsim = dlogits * log_t.exp()", "dsim = dlogits", "missing-factor", "dsim = dlogits * log_t.exp()"),
    (HELPER, "step", lambda: arrays((4, 3), (4, 3)),
     "dscore = sigmoid(score) / n", "dscore = sigmoid(score)", "wrong-scale", "dscore = sigmoid(score) / n"),
    (ROOT, "step", lambda: (rand(5, 4), rand(4, 4), rand(5, 4)),
     "q.g = s.g @ k / math.sqrt(d_k)", "q.g = s.g @ k", "wrong-scale", "q.g = (s.g @ k) / math.sqrt(d_k)"),
    (TURNS, "step", lambda: arrays((4, 3), (4, 2), (3, 2), (2,)),
     "db += dz", "db = dz", "overwritten-not-accumulated", "db += dz"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "given", "right", "wrong", "cause", "repair"), CASES)
def test_the_repair_holds_for_other_data(
    text: str, name: str, given: Any, right: str, wrong: str, cause: str, repair: str
) -> None:
    assert text.count(right) == 1 and checked(text, name, given()).ok
    planted = text.replace(right, wrong)
    (finding,) = checked(planted, name, given()).findings
    assert (finding.cause, finding.repair, finding.proved) == (cause, repair, True)
    changed = [line for line in planted.splitlines() if line not in text.splitlines()]
    assert finding.line is not None and planted.splitlines()[finding.line - 1] in (
        changed or ["        w -= 0.1 * w.g"]
    )


def checked(text: str, name: str, args: Any) -> Report:
    text = textwrap.dedent(text)
    space = of_source(text, rand=rand)
    return cr.check(eval(name, space), *args)
