"""`check`: loops over time, forward passes with a cache, writes in place and through an index: the line that is wrong."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source
from sweeps import of_today

import chainrule as cr
from chainrule.diagnosis.report import Report

GRU = """\
import torch

def step(xs, y, wz, wh):
    hs, kept = [torch.zeros(3, 4)], []
    for x in xs:
        h = hs[-1]
        xh = torch.cat([x, h], 1)
        z, c = torch.sigmoid(xh @ wz), torch.tanh(xh @ wh)
        hs.append((1 - z) * h + z * c)
        kept.append((xh, z, c, h))
    loss = ((hs[-1] - y) ** 2).sum()
    dh = 2 * (hs[-1] - y)
    dwz, dwh = torch.zeros_like(wz), torch.zeros_like(wh)
    for xh, z, c, h in reversed(kept):
        dz = dh * (c - h)
        dc = dh * z
        daz = dz * z * (1 - z)
        dac = dc * (1 - c**2)
        dwz += xh.T @ daz
        dwh += xh.T @ dac
        dprev = dh * (1 - z)
        dprev = dprev + (daz @ wz.T)[:, -4:] + (dac @ wh.T)[:, -4:]
        dh = dprev
    return loss, dwz, dwh
"""
TURNS = [
    ("dc = dh * z", "dc = dh", {"missing-factor"}),
    ("dac = dc * (1 - c**2)", "dac = dc * c * (1 - c)", {"wrong-factor"}),
    ("dac = dc * (1 - c**2)", "dac = dc", {"missing-factor"}),
    ("daz = dz * z * (1 - z)", "daz = dz * (1 - z)", {"missing-factor"}),
    ("dz = dh * (c - h)", "dz = dh * (h - c)", {"sign", "wrong-term-scale"}),
    ("dwh += xh.T @ dac", "dwh += xh.T @ daz", {"wrong-tensor"}),
    ("dwh += xh.T @ dac", "dwh = xh.T @ dac", {"overwritten-not-accumulated"}),
    ("dprev = dh * (1 - z)", "dprev = dh * z", {"wrong-tensor", "wrong-factor", "wrong-mask"}),
    ("dprev = dprev + (daz @ wz.T)[:, -4:] + (dac @ wh.T)[:, -4:]",
     "dprev = (daz @ wz.T)[:, -4:] + (dac @ wh.T)[:, -4:]", {"overwritten-not-accumulated", "lost-path"}),
]  # fmt: skip


def checked(text: str, name: str, *args: Any, **asked: str) -> Report:
    """What `check` says of `name` in `text`; `asked` are other functions of it, such as its forward pass."""
    text = textwrap.dedent(text)
    space = of_source(text)
    return cr.check(space[name], *args, **{key: space[value] for key, value in asked.items()})


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.7 * torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)))


def states() -> tuple[torch.Tensor, ...]:
    return rand(4, 3, 2), rand(3, 4), rand(6, 4), rand(6, 4, seed=1)


def test_the_recurrent_program_is_right() -> None:
    assert checked(GRU, "step", *states()).ok


@pytest.mark.parametrize(("right", "wrong", "causes"), TURNS)
def test_a_line_of_a_recurrence_is_one_finding(right: str, wrong: str, causes: set[str]) -> None:
    text = GRU.replace(f"{right}\n", f"{wrong}\n")
    assert text != GRU
    report = checked(text, "step", *states())
    assert len(report.findings) == 1, report
    (finding,) = report.findings
    assert finding.line is not None and text.splitlines()[finding.line - 1].strip() == wrong, report
    assert finding.cause in causes and finding.proved, report


NORM = """\
import numpy as np
import torch

def reference(x, gamma):
    return torch.nn.functional.layer_norm(x, x.shape[1:], gamma, eps=1e-5)

def forward(x, gamma):
    mu = x.mean(axis=1, keepdims=True)
    xc = x - mu
    var = (xc**2).mean(axis=1, keepdims=True)
    ivar = 1 / np.sqrt(var + 1e-5)
    xn = xc * ivar
    cache = (xc, ivar, xn, gamma)
    return gamma * xn, cache

def backward(dout, cache):
    xc, ivar, xn, gamma = cache
    dgamma = (dout * xn).sum(axis=0)
    dxn = dout * gamma
    dvar = np.sum(dxn * xc, axis=1, keepdims=True) * -0.5 * ivar**3
    dmu = -np.sum(dxn * ivar, axis=1, keepdims=True)
    dx = dxn * ivar + dvar * 2 * xc / xc.shape[1] + dmu / xc.shape[1]
    return dx, dgamma
"""
KEPT = [
    ("cache = (xc, ivar, xn, gamma)", "cache = (xc, ivar, xc, gamma)", {"wrong-tensor"}),
    ("cache = (xc, ivar, xn, gamma)", "cache = (xc, var, xn, gamma)", {"wrong-tensor"}),
    ("dxn = dout * gamma", "dxn = dout", {"missing-factor"}),
    ("dvar = np.sum(dxn * xc, axis=1, keepdims=True) * -0.5 * ivar**3",
     "dvar = np.sum(dxn * xc, axis=1, keepdims=True) * 0.5 * ivar**3", {"sign"}),
    ("dmu = -np.sum(dxn * ivar, axis=1, keepdims=True)",
     "dmu = -np.sum(dxn, axis=1, keepdims=True)", {"missing-factor"}),
]  # fmt: skip


def arrays() -> tuple[Any, ...]:
    generator = np.random.default_rng(3)
    return generator.standard_normal((6, 5)), generator.standard_normal(5)


@pytest.mark.parametrize("reference", ["reference", ""])
def test_the_norm_is_right(reference: str) -> None:
    asked = {"reference": reference} if reference else {}
    assert checked(NORM, "backward", *arrays(), forward="forward", **asked).ok


@pytest.mark.parametrize(("right", "wrong", "causes"), KEPT)
@pytest.mark.parametrize("reference", ["reference", ""])
def test_values_on_the_way_are_those_of_their_own_forward_pass(
    right: str, wrong: str, causes: set[str], reference: str
) -> None:
    text = NORM.replace(f"{right}\n", f"{wrong}\n")
    assert text != NORM
    asked = {"reference": reference} if reference else {}
    report = checked(text, "backward", *arrays(), forward="forward", **asked)
    assert len(report.findings) == 1, report
    (finding,) = report.findings
    assert finding.line is not None and text.splitlines()[finding.line - 1].strip() == wrong, report
    assert finding.cause in causes and finding.proved, report


SOFTMAX = """\
import torch

def step(x, w, y):
    s = x @ w
    p = s.softmax(1)
    rows = torch.arange(len(y))
    loss = -p[rows, y].log().mean()
    s.g = p.clone()
    s.g[rows, y] -= 1
    s.g /= len(y)
    w.g = torch.einsum("bi,bo->io", x, s.g)
    return loss
"""
PLACES = [
    ("s.g[rows, y] -= 1", "s.g[:, y] -= 1", {"wrong-axis"}),
    ("s.g[rows, y] -= 1", "s.g[rows, y] += 1", {"wrong-term-scale", "sign"}),
    ('w.g = torch.einsum("bi,bo->io", x, s.g)', 'w.g = torch.einsum("bi,bo->oi", x, s.g)', {"transposed"}),
]


@pytest.mark.parametrize(("right", "wrong", "causes"), PLACES)
def test_writes_through_an_index_and_in_place(right: str, wrong: str, causes: set[str]) -> None:
    text = SOFTMAX.replace(f"{right}\n", f"{wrong}\n")
    assert text != SOFTMAX
    report = checked(text, "step", rand(5, 4), rand(4, 3), torch.tensor([0, 2, 1, 2, 0]))
    (finding,) = report.findings
    assert finding.line is not None and text.splitlines()[finding.line - 1].strip() == wrong, report
    assert finding.cause in causes and finding.proved, report


def test_two_writes_in_place_are_one_finding() -> None:
    text = """\
        import torch

        def step(x, w, y):
            out = x @ w
            loss = out.sub_(y).pow_(2).mean()
            out.g = 2 * (out - y) / out.numel()
            w.g = x.T @ out.g
            return loss
        """
    report = checked(text, "step", rand(5, 4), rand(4, 3), rand(5, 3))
    (finding,) = report.findings
    assert (finding.line, finding.cause, finding.proved) == (5, "inplace-corruption", True), report
    assert finding.repair == "loss = out.sub(y).pow(2).mean()"


LSTM = """\
import torch

def lstm(x, h0, c0, wf, wi, wg, wo, y):
    h, c, caches = h0, c0, []
    for t in range(x.shape[1]):
        z = torch.cat([x[:, t], h], 1)
        f, i, o = torch.sigmoid(z @ wf), torch.sigmoid(z @ wi), torch.sigmoid(z @ wo)
        g = torch.tanh(z @ wg)
        c_prev, c = c, f * c + i * g
        tc = torch.tanh(c)
        h = o * tc
        caches.append((z, f, i, g, o, c_prev, tc))
    loss = ((h - y) ** 2).sum()
    dwf, dwi, dwg, dwo = (torch.zeros_like(w) for w in (wf, wi, wg, wo))
    dh_next, dc_next = 2 * (h - y), torch.zeros_like(c0)
    for t in reversed(range(x.shape[1])):
        z, f, i, g, o, c_prev, tc = caches[t]
        dh = dh_next
        do = dh * tc
        dc = dc_next + dh * o * (1 - tc**2)
        df = dc * c_prev
        di = dc * g
        dg = dc * i
        dzf = df * f * (1 - f)
        dzi = di * i * (1 - i)
        dzg = dg * (1 - g**2)
        dzo = do * o * (1 - o)
        dwf += z.T @ dzf
        dwi += z.T @ dzi
        dwg += z.T @ dzg
        dwo += z.T @ dzo
        dz = dzf @ wf.T + dzi @ wi.T + dzg @ wg.T + dzo @ wo.T
        dh_next = dz[:, -4:]
        dc_next = dc * f
    dh0, dc0 = dh_next, dc_next
    return loss, dh0, dc0, dwf, dwi, dwg, dwo
"""
GATES = [
    ("dc_next = dc * f", "dc_next = dc", "missing-factor", "dc_next = dc * f"),
    ("dzg = dg * (1 - g**2)", "dzg = dg * g * (1 - g)", "wrong-factor", "dzg = dg * (1 - g**2)"),
    ("dzf @ wf.T + dzi @ wi.T + dzg @ wg.T + dzo @ wo.T", "dzf @ wf.T + dzi @ wi.T + dzg @ wg.T", "lost-path", None),
    ("dc = dc_next + dh * o", "dc = dh * o", "lost-path", None),
    ("df = dc * c_prev", "df = dc * tc", "wrong-tensor", "df = dc * c_prev"),
]


@pytest.mark.parametrize(("right", "wrong", "cause", "repair"), of_today(GATES, 3))
def test_a_line_between_the_gates_is_one_finding(right: str, wrong: str, cause: str, repair: str | None) -> None:
    text = LSTM.replace(right, wrong)
    args = rand(3, 4, 2), rand(3, 4), rand(3, 4, seed=1), *(rand(6, 4, seed=k) for k in range(4)), rand(3, 4, seed=2)
    assert checked(LSTM, "lstm", *args).ok
    report = checked(text, "lstm", *args)
    (finding,) = report.findings
    assert finding.line is not None and wrong in text.splitlines()[finding.line - 1], report
    assert finding.cause == cause and finding.proved, report
    assert repair is None or finding.repair == repair, report


COPIES = """\
import numpy as np
import torch

def rnn_forward(x, h0, wx, wh):
    h = np.zeros((x.shape[0], x.shape[1] + 1, h0.shape[1]))
    h[:, -1] = h0
    for t in range(x.shape[1]):
        h[:, t] = np.tanh(x[:, t] @ wx + h[:, t - 1] @ wh)
    return h[:, :-1], (x, h, wx, wh)

def rnn_backward(dh, cache):
    x, h, wx, wh = cache
    dx, dwx, dwh = np.zeros_like(x), np.zeros_like(wx), np.zeros_like(wh)
    dprev = np.zeros_like(dh[:, 0])
    for t in range(x.shape[1] - 1, -1, -1):
        dnext = dh[:, t] + dprev
        dz = dnext * (1 - h[:, t] ** 2)
        dx[:, t] = dz @ wx.T
        dwx += x[:, t].T @ dz
        dwh += h[:, t - 1].T @ dz
        dprev = dz @ wh.T
    return dx, dprev, dwx, dwh

class Rms(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, g):
        r = (x * x).mean(-1, keepdim=True).rsqrt()
        ctx.save_for_backward(x, g, r)
        return x * r * g

    @staticmethod
    def backward(ctx, dy):
        x, g, r = ctx.saved_tensors
        u = dy * g
        dot = (u * x).sum(-1, keepdim=True)
        dx = r * u - x * r**3 * dot / x.shape[-1]
        return dx, (dy * x * r).sum(0)
"""


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [("rnn_backward", "dz = dnext * (1 - h[:, t] ** 2)", "dz = dnext"), ("Rms", "u = dy * g", "u = dy")],
)
def test_a_copy_of_a_right_gradient_is_the_mistake(name: str, right: str, wrong: str) -> None:
    args: tuple[Any, ...] = rand(6, 5), rand(5)
    if name == "rnn_backward":
        args = tuple(a.double().numpy() for a in (rand(3, 4, 2), rand(3, 5), rand(2, 5), rand(5, 5)))
    assert checked(COPIES, name, *args).ok
    (finding,) = checked(COPIES.replace(right, wrong), name, *args).findings
    assert (finding.cause, finding.text.strip()) == ("missing-factor", wrong), finding
