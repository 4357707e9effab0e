"""`check`: loops over time, forward passes with a cache, writes in place and through an index: the line that is wrong."""

from __future__ import annotations

import linecache
import textwrap
from typing import Any

import numpy as np
import pytest
import torch

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
    file = f"<planted {abs(hash(text))}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {}
    exec(compile(text, file, "exec"), space)
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
