"""`check`: loops whose turns do not depend on one another, arrays filled element by element, sums over many turns."""

from __future__ import annotations

import numpy as np
import pytest
from test_check_turns import checked, rand

SCAN = """\
def step(xs, a):
    h, hs = torch.zeros(3), []
    for t in range(4):
        h = torch.exp(xs[t] * a) * h + xs[t]
        hs.append(h)
    hs = torch.stack(hs)
    loss = hs.pow(2).sum()
    da, dxs, dh = torch.zeros_like(a), torch.zeros_like(xs), torch.zeros(3)
    for t in range(3, -1, -1):
        dh = dh + 2 * hs[t]
        prev = hs[t - 1] if t > 0 else torch.zeros(3)
        decay = torch.exp(xs[t] * a)
        ddecay = dh * prev
        da += ddecay * decay * xs[t]
        dxs[t] = dh + ddecay * decay * a
        dh = dh * decay
    return loss, da, dxs
"""
EXPERTS = """\
def step(x, p, w, b):
    top = torch.arange(8) % 3
    out, saved = torch.zeros(8, 2), []
    for e in range(3):
        rows = torch.nonzero(top == e)[:, 0]
        ye = x[rows] @ w[e] + b[e]
        out = out.index_add(0, rows, ye * p[rows, e][:, None])
        saved.append((rows, ye))
    loss = out.pow(2).sum()
    dout = 2 * out
    grads = {"w": torch.zeros_like(w), "b": torch.zeros_like(b), "p": torch.zeros_like(p)}
    for e in range(3):
        rows, ye = saved[e]
        do = dout[rows]
        grads["p"][rows, e] = (do * ye).sum(1)
        part = do * p[rows, e][:, None]
        grads["w"][e] = x[rows].t() @ part
        grads["b"][e] = part.sum(0)
    return loss, grads
"""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("prev = hs[t - 1] if t > 0 else torch.zeros(3)", "prev = hs[t]"), ("ddecay = dh * prev", "ddecay = dh * hs[t]")],
)
def test_what_is_zero_in_the_first_turn_is_a_gradient_in_the_others(right: str, wrong: str) -> None:
    assert checked(SCAN, rand(4, 3), rand(3)).ok
    text = SCAN.replace(right, wrong)
    (finding,) = checked(text, rand(4, 3), rand(3)).findings
    assert finding.line == text.splitlines().index(f"        {wrong}") + 1, str(finding)
    assert finding.cause == "wrong-tensor", str(finding)
    assert "given dh:" in finding.message, str(finding)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ("part = do * p[rows, 0][:, None]", ""),
        ("part = do", "missing-factor"),
        ("part = ye * p[rows, e][:, None]", "wrong-tensor"),
    ],
)
def test_the_turns_of_both_passes_may_come_in_one_order(wrong: str, cause: str) -> None:
    args = rand(8, 4), rand(8, 3), rand(3, 4, 2), rand(3, 2)
    assert checked(EXPERTS, *args).ok
    text = EXPERTS.replace("part = do * p[rows, e][:, None]", wrong)
    (finding,) = checked(text, *args).findings
    assert finding.line == text.splitlines().index(f"        {wrong}") + 1, str(finding)
    assert finding.cause == cause or (finding.repair == "part = do * p[rows, e][:, None]" and finding.proved)


LATTICE = """\
import numpy as np


def step(x, w, labels):
    ids = np.zeros(2 * len(labels) + 1, dtype=int)
    ids[1::2] = labels
    z = x @ w
    T, S = len(x), len(ids)
    sums = np.zeros((T, S))
    for t in range(T):
        for s in range(S):
            sums[t, s] = z[t, ids[s]] + (sums[t - 1, s] if t > 0 else 0)
    loss = (sums[T - 1] ** 2).sum()
    dz, dsums = np.zeros_like(z), np.zeros((T, S))
    dsums[T - 1] = 2 * sums[T - 1]
    for t in range(T - 1, -1, -1):
        for s in range(S):
            g = dsums[t, s]
            dz[t, ids[s]] += g
            if t > 0:
                dsums[t - 1, s] += g
    dw, dx = x.T @ dz, dz @ w.T
    return loss, dw, dx
"""


def test_an_element_that_several_turns_write_is_added_to() -> None:
    args = rand(3, 4).double().numpy(), rand(4, 3).double().numpy(), np.array([1, 2])
    assert checked(LATTICE, *args).ok
    (finding,) = checked(LATTICE.replace("dz[t, ids[s]] += g", "dz[t, ids[s]] = g"), *args).findings
    assert finding.line == 19 and finding.cause in ("index-overwrite", "overwritten-not-accumulated"), str(finding)
    assert finding.proved, str(finding)
