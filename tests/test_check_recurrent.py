"""`check`: the backward pass of one step, called for each step of a sequence, whose gates are put together again."""

from __future__ import annotations

import numpy as np
import pytest
from of_source import of_source
from sweeps import of_today

import chainrule as cr

LSTM = """\
import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def step_forward(x, prev_h, prev_c, Wx, Wh, b):
    H = prev_h.shape[1]
    a = x.dot(Wx) + prev_h.dot(Wh) + b
    i, f, o = sigmoid(a[:, :H]), sigmoid(a[:, H : 2 * H]), sigmoid(a[:, 2 * H : 3 * H])
    g = np.tanh(a[:, 3 * H :])
    next_c = f * prev_c + i * g
    next_h = o * np.tanh(next_c)
    return next_h, next_c, (x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c)


def step_backward(dnext_h, dnext_c, cache):
    x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c = cache
    tc = np.tanh(next_c)
    do = dnext_h * tc
    dc = dnext_c + dnext_h * o * (1 - tc**2)
    df, dprev_c, di, dg = dc * prev_c, dc * f, dc * g, dc * i
    da = np.hstack((i * (1 - i) * di, f * (1 - f) * df, o * (1 - o) * do, (1 - g**2) * dg))
    return da.dot(Wx.T), da.dot(Wh.T), dprev_c, x.T.dot(da), prev_h.T.dot(da), da.sum(axis=0)


def lstm_forward(x, h0, Wx, Wh, b):
    h, caches = np.zeros((x.shape[0], x.shape[1], h0.shape[1])), []
    prev_h, prev_c = h0, np.zeros_like(h0)
    for t in range(x.shape[1]):
        prev_h, prev_c, cache = step_forward(x[:, t], prev_h, prev_c, Wx, Wh, b)
        h[:, t] = prev_h
        caches.append(cache)
    return h, caches


def lstm_backward(dh, caches):
    N, T, H = dh.shape
    D = caches[0][0].shape[1]
    dx, dWx, dWh, db = np.zeros((N, T, D)), np.zeros((D, 4 * H)), np.zeros((H, 4 * H)), np.zeros(4 * H)
    dprev_h, dprev_c = np.zeros((N, H)), np.zeros((N, H))
    for t in reversed(range(T)):
        dx[:, t], dprev_h, dprev_c, dWx_t, dWh_t, db_t = step_backward(dh[:, t] + dprev_h, dprev_c, caches[t])
        dWx += dWx_t
        dWh += dWh_t
        db += db_t
    dh0 = dprev_h
    return dx, dh0, dWx, dWh, db
"""
GATES = "da = np.hstack((i * (1 - i) * di, f * (1 - f) * df, o * (1 - o) * do, (1 - g**2) * dg))"
WRONG = [
    (GATES.replace("o * (1 - o) * do", "do"), "missing-factor"),
    (GATES.replace("(1 - g**2) * dg", "g * (1 - g) * dg"), "wrong-factor"),
]


def checked(source: str, steps: int) -> cr.Report:
    space = of_source(source)
    r = np.random.default_rng(steps)
    shapes = (2, steps, 3), (2, 4), (3, 16), (4, 16), (16,)
    return cr.check(space["lstm_backward"], *(r.standard_normal(s) / 2 for s in shapes), forward=space["lstm_forward"])


@pytest.mark.parametrize("steps", [1, 3])
def test_the_right_steps_are_right(steps: int) -> None:
    assert checked(LSTM, steps).ok


@pytest.mark.parametrize(("steps", "wrong", "cause"), of_today([(steps, *w) for steps in (1, 3) for w in WRONG], 3))
def test_one_part_of_what_is_put_together_is_one_finding(steps: int, wrong: str, cause: str) -> None:
    source = LSTM.replace(GATES, wrong)
    (finding,) = checked(source, steps).findings
    assert finding.text == wrong
    assert (finding.cause, finding.proved) == (cause, True)
    assert cause not in finding.also
    assert finding.edit is not None
    (line,) = finding.edit.lines
    assert line.strip().startswith("da = np.hstack((i * (1 - i) * di, f * (1 - f) * df, ")  # as the person writes it
    assert checked("\n".join(finding.edit.applied(source.splitlines())), 2).ok
