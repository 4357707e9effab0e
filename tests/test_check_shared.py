"""`check`: what several lines share: a function that they call, the gradient of a value without a name, a size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr

GATED = """\
import numpy as np


def gate(z):
    return 1 / (1 + np.exp(-z))


def dgate(s):
    return s * (1 - s)


def through(d, s, t):
    return d * dgate(s) * t


def step(x, y, w, u, v):
    p, q = x @ w, x @ u
    s, t = gate(p), gate(q)
    h = s * t
    out = gate(h @ v)
    loss = ((out - y) ** 2).sum()
    do = 2 * (out - y) * dgate(out)
    dv = h.T @ do
    dh = do @ v.T
    dp, dq = through(dh, s, t), through(dh, t, s)
    dx = dp @ w.T + dq @ u.T
    return loss, {"w": x.T @ dp, "u": x.T @ dq, "v": dv, "x": dx}
"""
IN_A_FUNCTION = [  # the line, what stands there, and whether it has a repair
    ("    return s * (1 - s)", "    return s * (1 + s)", True),
    ("    return d * dgate(s) * t", "    return d * dgate(s)", True),
    ("    return d * dgate(s) * t", "    return d * gate(s) * t", False),  # not in the function that the loss calls too
    ("    do = 2 * (out - y) * dgate(out)", "    do = (out - y) * dgate(out)", True),  # a line that calls a right one
]
SCORES = """\
import math

import torch


def step(x, wq, wk, wv):
    d = wq.shape[1]
    q, k, v = x @ wq, x @ wk, x @ wv
    p = torch.softmax(q @ k.T / math.sqrt(d), -1)
    out = p @ v
    loss = (out**2).mean()
    dout = 2 * out / out.numel()
    dp = dout @ v.T
    dv = p.T @ dout
    ds = p * (dp - (dp * p).sum(-1, keepdim=True))
    dq = ds @ k / math.sqrt(d)
    dk = ds.T @ q / math.sqrt(d)
    return loss, {"wq": x.T @ dq, "wk": x.T @ dk, "wv": x.T @ dv}
"""
OF_SCORES = ["ds = p * dp", "ds = p * (dp - (dp * p).sum(0, keepdim=True))", "ds = torch.sin(dp) * p - dp.cos()"]
LAYERS = """\
import numpy as np


def linear_backward(dz, cache):
    a, w = cache
    m = a.shape[1]
    dw = np.dot(dz, a.T) / m
    db = np.sum(dz, axis=1, keepdims=True) / m
    return np.dot(w.T, dz), dw, db


def step(x, y, parameters):
    w1, b1, w2, b2 = (parameters[n] for n in ("w1", "b1", "w2", "b2"))
    z1 = np.dot(w1, x) + b1
    a1 = np.tanh(z1)
    z2 = np.dot(w2, a1) + b2
    loss = np.sum((z2 - y) ** 2) / (2 * x.shape[1])
    grads = {}
    da1, grads["dw2"], grads["db2"] = linear_backward(z2 - y, (a1, w2))
    _, grads["dw1"], grads["db1"] = linear_backward(da1 * (1 - a1**2), (x, w1))
    return loss, grads
"""


@pytest.mark.parametrize(("right", "wrong", "mended"), IN_A_FUNCTION)
def test_one_mistake_in_or_beside_a_function_that_several_lines_call(right: str, wrong: str, mended: bool) -> None:
    def data(n: int, d: int) -> list[np.ndarray]:
        r = np.random.default_rng(n)
        return [r.standard_normal(s) for s in ((n, 4), (n, d), (4, 3), (4, 3), (3, d))]

    assert cr.check(of_source(GATED)["step"], *data(5, 2)).ok
    source = GATED.replace(right, wrong)
    (finding,) = cr.check(of_source(source)["step"], *data(5, 2)).findings
    assert finding.text == wrong.strip()
    assert finding.proved == mended
    if finding.edit is not None:
        then = "\n".join(finding.edit.applied(source.splitlines()))
        assert cr.check(of_source(then)["step"], *data(7, 1)).ok


@pytest.mark.parametrize("wrong", OF_SCORES)
def test_the_gradient_of_a_scaled_value_without_a_name(wrong: str) -> None:
    """Of `q @ k.T / sqrt(d)`, which two right lines read."""
    args = [torch.randn(s, generator=torch.Generator().manual_seed(3)) for s in ((5, 4), (4, 3), (4, 3), (4, 3))]
    right = "ds = p * (dp - (dp * p).sum(-1, keepdim=True))"
    assert cr.check(of_source(SCORES)["step"], *args).ok
    (finding,) = cr.check(of_source(SCORES.replace(right, wrong))["step"], *args).findings
    assert (finding.text, finding.proved) == (wrong, True)
    assert finding.repair in (right, right.replace("(-1, ", "(1, "))


def test_a_size_that_two_lines_read_is_one_finding() -> None:
    def data(m: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        r = np.random.default_rng(m)
        shapes = {"w1": (5, 4), "b1": (5, 1), "w2": (2, 5), "b2": (2, 1)}
        return (
            r.standard_normal((4, m)),
            r.standard_normal((2, m)),
            {n: r.standard_normal(s) for n, s in shapes.items()},
        )

    assert cr.check(of_source(LAYERS)["step"], *data(7)).ok
    source = LAYERS.replace("m = a.shape[1]", "m = a.shape[0]")
    (finding,) = cr.check(of_source(source)["step"], *data(7)).findings
    assert (finding.text, finding.cause, finding.proved) == ("m = a.shape[0]", "wrong-scale", True)
    assert finding.edit is not None
    assert cr.check(of_source("\n".join(finding.edit.applied(source.splitlines())))["step"], *data(6)).ok
