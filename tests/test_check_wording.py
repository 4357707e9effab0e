"""The repairs of `check` in the words of the person's file: its parentheses, its quotes, its names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source
from test_check import program, rand
from test_check_repairs import repair

import chainrule as cr


def of_class(text: str, name: str, *args: Any, **space: Any) -> str:
    """The one repair of a class of `text`, which must be proved."""
    report = cr.check(of_source(text, **{"torch": torch, "np": np, **space})[name], *args)
    assert len(report.findings) == 1 and report.findings[0].proved, str(report)
    return report.findings[0].repair


SWISH = """
class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        s = torch.sigmoid(beta * x)
        ctx.save_for_backward(x, s)
        ctx.beta = beta
        return x * s

    @staticmethod
    def backward(ctx, g):
        x, s = ctx.saved_tensors
        return g * (s + x * s * (1 - s)), None
"""

SCALED = """
class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, k):
        ctx.save_for_backward(x, w)
        ctx.k = k
        return x * x * w * k

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        dw = (g * x * x * ctx.k).sum(0)
        return g * x * ctx.k * w, dw, None
"""


def test_a_product_in_a_product_has_no_parentheses() -> None:
    text = of_class(SWISH, "Swish", rand(4, 5), 1.7)
    assert text == "return g * (s + ctx.beta * x * s * (1 - s)), None"
    assert of_class(SCALED, "Scaled", rand(4, 5), rand(5), 1.7) == "return 2 * g * x * ctx.k * w, dw, None"


LINEAR = """
def step(x, w, t):
    n, m, d = x.shape
    out = x.reshape(n * m, d) @ w
    loss = ((out - t) ** 2).sum() / n
    dout = {}
    dx = {}
    dw = x.reshape(n * m, d).T @ dout
    return loss, dx, dw
"""
RIGHT = "2 * (out - t) / n", "(dout @ w.T).reshape(x.shape)"


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        ((RIGHT[0], "(dout @ w.T)"), "dx = (dout @ w.T).reshape(x.shape)"),
        (("(out - t)", RIGHT[1]), "dout = 2 * (out - t) / n"),
        (("2 * (t - out) / n", RIGHT[1]), "dout = 2 * (out - t) / n"),
    ],
)
def test_parentheses_stand_where_they_are_needed(lines: tuple[str, str], right: str) -> None:
    args = rand(3, 2, 4), rand(4, 5), rand(6, 5)
    assert cr.check(program(LINEAR.format(*RIGHT)), *args).ok
    assert repair(LINEAR.format(*lines), *args) == right


ENTRIES = """
def step(x, p):
    h = torch.tanh(x @ p['w'] + p['b'])
    out = h @ p['v']
    loss = (out**2).sum()
    g = {}
    dout = 2 * out
    g['v'] = h.T @ dout
    da = {da}
    {b}
    g['w'] = x.T @ da
    return loss, g
"""


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        (("(dout @ p['v'].T) * (1 - h**2)", "g['b'] = 0 * p['b']"), "g['b'] = da.sum(0)"),
        (("(1 - h**2)", "g['b'] = da.sum(0)"), "da = (dout @ p['v'].T) * (1 - h**2)"),
        (("dout @ p['v'].T", "g['b'] = da.sum(0)"), "da = (dout @ p['v'].T) * (1 - h**2)"),
    ],
)
def test_quotes_and_powers_are_those_of_the_file(lines: tuple[str, str], right: str) -> None:
    text = ENTRIES.replace("{da}", lines[0]).replace("{b}", lines[1])
    assert repair(text, rand(6, 5), {"w": rand(5, 4), "b": rand(4), "v": rand(4, 3)}) == right


PAIRS = """
def rotate(x, cos, sin):
    a, b = x[..., ::2], x[..., 1::2]
    return {}

def step(x, w, cos, sin):
    q = x @ w
    r = rotate(q, cos, sin)
    loss = (r**3).sum()
    dr = 3 * r**2
    dq = rotate(dr, cos, {})
    dw = x.T @ dq
    return loss, dw
"""
IN_TORCH = "torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)"
IN_NUMPY = "np.stack((a * cos - b * sin, a * sin + b * cos), axis=-1).reshape(x.shape)"


@pytest.mark.parametrize("spelled", [IN_TORCH, IN_NUMPY])
def test_an_argument_has_the_other_sign_in_the_backward_pass(spelled: str) -> None:
    angles = rand(5, 3)
    args: list[Any] = [rand(5, 4), rand(4, 6), angles.cos(), angles.sin()]
    if spelled is IN_NUMPY:
        args = [a.numpy() for a in args]
    assert cr.check(program(PAIRS.format(spelled, "-sin"), np=np), *args).ok
    assert repair(PAIRS.format(spelled, "sin"), *args, np=np) == "dq = rotate(dr, cos, -sin)"
    assert repair(PAIRS.format(spelled, "sin=sin"), *args, np=np) == "dq = rotate(dr, cos, sin=-sin)"


HALVES = """
def rotated(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)

def rotate(x, cos, sin):
    return x * cos + rotated(x) * sin

def step(x, w, cos, sin):
    q = x @ w
    r = rotate(q, cos, sin)
    loss = r.pow(3).sum()
    r.g = 3 * r * r
    q.g = rotate(r.g, cos, {})
    w.g = x.T @ q.g
    return loss
"""


def test_angles_that_stand_twice_in_a_row_still_do_for_other_data() -> None:
    angles = rand(5, 3).repeat(1, 2)
    args = rand(5, 4), rand(4, 6), angles.cos(), angles.sin()
    assert cr.check(program(HALVES.format("-sin")), *args).ok
    assert repair(HALVES.format("sin"), *args) == "q.g = rotate(r.g, cos, -sin)"


THREE_NAMED_ALIKE = """
def step(x, w, b, v):
    z = x @ w + b
    {z} = torch.tanh(z)
    y = {z} @ v
    loss = (y**3).sum()
    dy = 3 * y**2
    dv = torch.tanh(x @ w + b).T @ dy
    dz = (dy @ v.T) * (1 - torch.tanh(x @ w + b) ** 2)
    dw = x.T @ dz
    return loss, {{"w": dw, "v": dv}}
"""


@pytest.mark.parametrize(("name", "line"), [("z", ""), ("h", "b.g = (((3 * y ** 2) @ v.T) * (1 - h ** 2)).sum(0)")])
def test_a_line_without_a_place_has_names_of_the_persons_only(name: str, line: str) -> None:
    args = [a.requires_grad_() for a in (rand(4, 5), rand(5), rand(5, 3))]
    report = cr.check(program(THREE_NAMED_ALIKE.format(z=name)), rand(3, 4), *args)
    (finding,) = report.findings
    assert (finding.cause, finding.repair, finding.proved) == ("missing-gradient", line, False)


UNROLLED = """
def step(x, w, u):
    h = torch.zeros(x.shape[0], u.shape[0])
    hs = []
    for t in range(x.shape[1]):
        hs.append(h)
        z = x[:, t] @ w + h @ u
        h = h + torch.tanh(z)
    loss = (h**3).sum()
    w.g, u.g = torch.zeros_like(w), torch.zeros_like(u)
    d = 3 * h**2
    for t in range(x.shape[1] - 1, -1, -1):
        z = x[:, t] @ w + hs[t] @ u
        dz = d * (1 - z**2)
        w.g += x[:, t].T @ dz
        u.g += hs[t].T @ dz
        d = d + dz @ u
    return loss
"""


def test_a_line_of_one_turn_that_does_not_mend_the_loop_is_no_repair() -> None:
    report = cr.check(program(UNROLLED), rand(3, 4, 5), rand(5, 5) / 3, rand(5, 5) / 3)
    assert report.findings and all(f.proved or not f.repair for f in report.findings), str(report)


SMOOTHED = """
def step(z, t, eps):
    n, k = z.shape
    logp = z - torch.logsumexp(z, 1, keepdim=True)
    smooth = eps / k
    y = torch.full_like(z, smooth)
    y[torch.arange(n), t] += 1 - eps
    loss = -(y * logp).sum() / n
    dz = {}
    return loss, dz
"""


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("(logp.exp() - y)", "(logp.exp() - y) / n"),
        ("(logp.exp() - smooth * y) / n", "(logp.exp() - y) / n"),
        ("((1 - eps) * logp.exp() - y) / n", "(logp.exp() - y) / n"),
        ("logp.exp() - y / n", "logp.exp() / n - y / n"),
    ],
)
def test_a_number_that_comes_from_a_size_is_no_other_for_other_sizes(line: str, right: str) -> None:
    args = rand(6, 4), torch.tensor([0, 1, 2, 3, 1, 0]), 0.1
    assert cr.check(program(SMOOTHED.format(right)), *args).ok
    assert repair(SMOOTHED.format(line), *args) == f"dz = {right}"
