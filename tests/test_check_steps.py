"""One line that is missing between a gradient and several that read it is one mistake."""

from __future__ import annotations

import math

import pytest
import torch
from test_check import program, rand

import chainrule as cr

ATTENTION = """
def step(x, wq, wk, wv, bias):
    d = wq.shape[1]
    q, k, v = x @ wq, x @ wk, x @ wv
    scores = q @ k.T
    scores = scores / math.sqrt(d) + bias
    p = scores.softmax(-1)
    out = p @ v
    loss = (out**2).mean()
    dout = 2 * out / out.numel()
    dp = dout @ v.T
    dv = p.T @ dout
    dscores = p * (dp - (dp * p).sum(-1, keepdim=True))
    dbias = dscores.sum(0)
    dscores = dscores / math.sqrt(d)
    dq = dscores @ k
    dk = dscores.T @ q
    return loss, {"wq": x.T @ dq, "wk": x.T @ dk, "wv": x.T @ dv, "bias": dbias}
"""

RESIDUAL = """
def norm(x, g):
    r = (x**2).mean(-1, keepdim=True).rsqrt()
    return x * r * g, r

def norm_backward(dy, x, g, r):
    dg = (dy * x * r).sum(0)
    dy = dy * g
    return r * (dy - x * r**2 * (dy * x).mean(-1, keepdim=True)), dg

def step(x, w, g, u):
    a = x @ w
    c, r = norm(a, g)
    z = a + c.tanh() @ u
    loss = (z**3).mean()
    dz = 3 * z**2 / z.numel()
    du = c.tanh().T @ dz
    dc = dz @ u.T * (1 - c.tanh() ** 2)
    da, dg = norm_backward(dc, a, g, r)
    da = da + dz
    dw = x.T @ da
    dx = da @ w.T
    return loss, dx, dw, dg, du
"""

NORM = """
def step(x, g, wq, wk):
    n = len(x)
    r = (x**2).mean(1, keepdim=True).rsqrt()
    y = x * r * g
    q, k = y @ wq, y @ wk
    loss = (q * k.tanh()).sum() / n
    dq = k.tanh() / n
    dk = q * (1 - k.tanh() ** 2) / n
    dy = dq @ wq.T + dk @ wk.T
    dg = (dy * x * r).sum(0)
    dwq, dwk = y.T @ dq, y.T @ dk
    dy = dy * g
    dr = (dy * x).sum(1, keepdim=True)
    dx = dy * r - dr * r**3 * x / x.shape[1]
    return loss, dx, dg, dwq, dwk
"""

CASES = [
    (
        ATTENTION,
        "    dscores = dscores / math.sqrt(d)\n",
        "wrong-scale",
        (rand(5, 6), rand(6, 3), rand(6, 3), rand(6, 4), rand(5)),
    ),
    (RESIDUAL, "    da = da + dz\n", "lost-path", (rand(4, 3), rand(3, 5), rand(5), rand(5, 5))),
    (NORM, "    dy = dy * g\n", "missing-factor", (rand(4, 3), rand(3), rand(3, 2), rand(3, 2))),
]


@pytest.mark.parametrize(("text", "line", "cause", "args"), CASES)
def test_a_lost_line_that_several_gradients_need_is_one_finding(
    text: str, line: str, cause: str, args: tuple[torch.Tensor, ...]
) -> None:
    assert cr.check(program(text, math=math), *args).ok
    report = cr.check(program(text.replace(line, ""), math=math), *args)
    (finding,) = report.findings
    assert (finding.cause, finding.proved) == (cause, True), str(report)
    assert finding.edit is not None and finding.edit.inserts
    assert finding.line == text[: text.index(line)].count("\n")  # below which it stands


def test_two_mistakes_below_one_gradient_are_two_findings() -> None:
    text = ATTENTION.replace("dk = dscores.T @ q", "dk = dscores @ q").replace(
        "dq = dscores @ k", "dq = dscores @ k / 2"
    )
    report = cr.check(program(text, math=math), rand(5, 6), rand(6, 3), rand(6, 3), rand(6, 4), rand(5))
    assert sorted(f.cause for f in report.findings) == ["transposed", "wrong-scale"], str(report)


STACK = """
class Linear:
    def __init__(self, w):
        self.w, self.dw, self.seen = w, torch.zeros_like(w), []

    def forward(self, x):
        self.seen.append(x)
        return x @ self.w

    def back(self, dy):
        self.dw += self.seen.pop().T @ dy
        return dy @ self.w.T

def step(x, y, w, v):
    one, two = Linear(w), Linear(v)
    p = torch.tanh(one.forward(x))
    q = torch.tanh(one.forward(y))
    a, b = two.forward(p), two.forward(q)
    loss = (a * b).sum()
    da, db = b, a
    dq = two.back(db)
    dp = two.back(da)
    dy = one.back(dq * (1 - q**2))
    dx = one.back(dp * (1 - p**2))
    return loss, {"x": dx, "y": dy, "w": one.dw, "v": two.dw}
"""


def test_two_calls_that_pop_in_the_wrong_order_are_one_finding() -> None:
    args = rand(4, 3), rand(4, 3, seed=1), rand(3, 5), rand(5, 2)
    assert cr.check(program(STACK), *args).ok
    lines = "    dq = two.back(db)\n", "    dp = two.back(da)\n"
    report = cr.check(program(STACK.replace("".join(lines), "".join(lines[::-1]))), *args)
    (finding,) = report.findings
    assert finding.proved and finding.edit is not None and "wrong order" in finding.message, str(report)
    assert finding.edit.lines == tuple(line.rstrip() for line in lines)


CONCAT = """
def step(x, w, u, v):
    h, s = (x @ w).tanh(), (x @ u).sin()
    joined = torch.cat((h, s), 1)
    out = joined @ v
    loss = (out**3).sum()
    dout = 3 * out**2
    dv = joined.T @ dout
    djoined = dout @ v.T
    dh, ds = djoined[:, : w.shape[1]], djoined[:, w.shape[1] :]
    dw = x.T @ (dh * (1 - h**2))
    du = x.T @ (ds * (x @ u).cos())
    return loss, dw, du, dv
"""


def test_two_halves_of_one_gradient_that_are_the_other_ones_are_one_finding() -> None:
    args = rand(6, 4), rand(4, 3), rand(4, 2), rand(5, 3)
    assert cr.check(program(CONCAT), *args).ok
    right = "dh, ds = djoined[:, : w.shape[1]], djoined[:, w.shape[1] :]"
    wrong = "ds, dh = djoined[:, : u.shape[1]], djoined[:, u.shape[1] :]"
    report = cr.check(program(CONCAT.replace(right, wrong)), *args)
    (finding,) = report.findings
    assert (finding.cause, finding.proved, finding.text.strip()) == ("wrong-tensor", True, wrong), str(report)
