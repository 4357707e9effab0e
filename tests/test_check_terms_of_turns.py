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


SQUARES = """\
def step(ps, c, d):
    kept, loss = [], 0.0
    for t in range(3):
        p = ps[t]
        s = c @ p @ c.T + d
        kept.append((p, s))
        loss = loss + (s**2).sum()
    dc = torch.zeros_like(c)
    dd = torch.zeros_like(d)
    for t in range(2, -1, -1):
        p, s = kept[t]
        ds = 2 * s
        dc += ds @ c @ p.T
        dc += ds.T @ c @ p
        dd += ds
    return loss, dc, dd
"""


@pytest.mark.parametrize(
    ("right", "wrong", "line", "cause"),
    [
        ("        dc += ds.T @ c @ p\n", "", 13, "lost-path"),
        ("        dc += ds @ c @ p.T\n", "", 13, "lost-path"),
        ("dc += ds @ c @ p.T", "dc += ds.T @ c @ p.T", 13, ""),
    ],
)
def test_the_term_of_a_sum_over_turns_is_found(right: str, wrong: str, line: int, cause: str) -> None:
    args = rand(3, 4, 4), rand(2, 4), rand(2, 2)
    assert checked(SQUARES, *args).ok
    (finding,) = checked(SQUARES.replace(right, wrong), *args).findings
    assert (finding.line, finding.proved) == (line, True), str(finding)
    assert finding.cause == cause or not cause, str(finding)


SKIPPED = """\
def step(xs, w, k):
    hs, loss = [], (xs * k).sum()
    for t in range(3):
        hs.append(torch.tanh(w * xs[t]))
        loss = loss + hs[t].pow(2).sum()
    dxs = k.clone()
    dw = torch.zeros_like(w)
    for t in range(3):
        dh = 2 * hs[t] * (1 - hs[t] ** 2)
        dxs[t] += dh * w
        dw += dh * xs[t]
    return loss, dxs, dw
"""


def test_a_sum_that_should_not_begin_with_nothing() -> None:
    args = rand(3, 4), rand(4), rand(3, 4, seed=1)
    assert checked(SKIPPED, *args).ok
    (finding,) = checked(SKIPPED.replace("k.clone()", "torch.zeros_like(xs)"), *args).findings
    assert (finding.line, finding.cause, finding.proved) == (6, "lost-path", True), str(finding)


MOVED = """\
import numpy as np


def step(v, pos, neg, a, b):
    loss = (v[pos] * a).sum() + (v[neg] ** 2 * b).sum() / 2 + (v ** 3).sum()
    dv = 3 * v ** 2
    dpos = np.broadcast_to(a, v[pos].shape)
    dneg = v[neg] * b
    np.add.at(dv, pos, dpos)
    np.add.at(dv, neg, dneg)
    return loss, dv
"""


@pytest.mark.parametrize(
    ("right", "wrong"), [("(dv, neg, dneg)", "(dv, pos, dneg)"), ("(dv, pos, dpos)", "(dv, neg, dpos)")]
)
def test_rows_that_are_added_elsewhere_are_found_on_their_line(right: str, wrong: str) -> None:
    args = rand(5, 3).numpy(), np.array([0, 2, 2]), np.array([4, 1, 0]), rand(3, 3).numpy(), rand(3, 3, seed=1).numpy()
    assert checked(MOVED, *args).ok
    (finding,) = checked(MOVED.replace(right, wrong), *args).findings
    assert finding.line == (10 if "dneg" in right else 9), str(finding)
    assert finding.proved and right in finding.repair, str(finding)
