"""`check`: numbers that are equal by chance, a default among them: what is proved holds where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr

GROUPS = """\
import numpy as np


def norm_forward(x, gamma, beta, G=2):
    N, C, H, W = x.shape
    xg = x.reshape(N * G, C // G * H * W)
    xc = xg - xg.mean(axis=1, keepdims=True)
    std = np.sqrt((xc**2).mean(axis=1, keepdims=True) + 1e-5)
    xn = (xc / std).reshape(N, C, H, W)
    return gamma * xn + beta, (xc, std, xn, gamma, G)


def norm_backward(dout, cache):
    xc, std, xn, gamma, G = cache
    N, C, H, W = dout.shape
    dbeta = dout.sum(axis=(0, 2, 3), keepdims=True)
    dgamma = (dout * xn).sum(axis=(0, 2, 3), keepdims=True)
    dxn = (dout * gamma).reshape(N * G, -1)
    m = dxn.shape[1]
    dstd = -(dxn * xc).sum(axis=1, keepdims=True) / std**2
    dvar = 0.5 * dstd / std
    dxc = dxn / std + 2 * xc * dvar / m
    dx = dxc - dxc.sum(axis=1, keepdims=True) / m
    return dx.reshape(N, C, H, W), dgamma, dbeta
"""
POOLS = """\
import numpy as np


def pool_forward(x, k=2):
    N, C, H, W = x.shape
    p = x.reshape(N, C, H // k, k, W // k, k).mean(axis=(3, 5))
    return (p**2).repeat(k, axis=2).repeat(k, axis=3), (x, p, k)


def pool_backward(dout, cache):
    x, p, k = cache
    N, C, H, W = x.shape
    ds = dout.reshape(N, C, H // k, k, W // k, k).sum(axis=(3, 5))
    dp = 2 * p * ds
    dx = (dp / (k * k)).repeat(k, axis=2).repeat(k, axis=3)
    return dx
"""
HEADS = """\
import torch


class Attention:
    def __init__(self, dim, heads):
        self.heads = heads
        self.Wqkv = torch.randn(dim, 3 * dim) / dim**0.5

    def forward(self, x):
        B, T, D = x.shape
        H, d = self.heads, D // self.heads
        self.x = x
        qkv = (x @ self.Wqkv).view(B, T, 3, H, d).permute(2, 0, 3, 1, 4)
        self.q, self.k, self.v = qkv[0], qkv[1], qkv[2]
        scores = self.q @ self.k.transpose(-1, -2) / d**0.5
        self.att = torch.softmax(scores, dim=-1)
        return (self.att @ self.v).transpose(1, 2).reshape(B, T, D)

    def backward(self, dout):
        B, T, D = dout.shape
        H, d = self.heads, D // self.heads
        dctx = dout.view(B, T, H, d).transpose(1, 2)
        datt = dctx @ self.v.transpose(-1, -2)
        dv = self.att.transpose(-1, -2) @ dctx
        ds = self.att * (datt - (datt * self.att).sum(-1, keepdim=True))
        dq = ds @ self.k / d**0.5
        dk = ds.transpose(-1, -2) @ self.q / d**0.5
        dqkv = torch.stack([dq, dk, dv]).permute(1, 3, 0, 2, 4).reshape(B, T, 3 * D)
        self.dWqkv = self.x.reshape(-1, D).T @ dqkv.reshape(-1, 3 * D)
        return dqkv @ self.Wqkv.T
"""
HELD = """\
import numpy as np


class Coder:
    def __init__(self, w):
        self.w = w
        self.params = [self.w]
        self.grads = None

    def loss(self, x, eps):
        B = x.shape[0]
        w = self.params[0]
        logvar = x @ w
        std = np.exp(0.5 * logvar)
        z = eps * std
        dz = 2 * z / B
        dlogvar = 0.5 * dz * eps * std + 0.5 * (np.exp(logvar) - 1) / B
        self.grads = [x.T @ dlogvar]
        return (z**2).sum() / B + 0.5 * (np.exp(logvar) - logvar).sum() / B
"""
RIGHT_FOR_MORE = [  # what is right, what stands there, and what is written for it
    (GROUPS, "dvar = 0.5 * dstd / std", "dvar = dstd / std", ("dvar = dstd / std / 2", "dvar = 0.5 * dstd / std")),
    (GROUPS, "(dout * gamma).reshape(N * G", "dout.reshape(N * G", ("dxn = (dout * gamma).reshape(N * G, -1)",)),
    (GROUPS, "(0, 2, 3), keepdims=True)\n    dgamma", "(0, 2, 3))\n    dgamma", None),
    (POOLS, "dp = 2 * p * ds", "dp = p * ds", ("dp = 2 * p * ds",)),
    (POOLS, "dx = (dp / (k * k)).repeat", "dx = dp.repeat", ("/ (k * k)",)),
    (HEADS, "self.k / d**0.5", "self.k", ("dq = (ds @ self.k) / d**0.5", "dq = ds @ self.k / d**0.5")),
    (HEADS, "self.k / d**0.5", "self.k / D**0.5", ("dq = (ds @ self.k) / d**0.5", "dq = ds @ self.k / d**0.5")),
    (HEADS, "self.q / d**0.5", "self.q / d", ("@ self.q) / d**0.5", "@ self.q / d**0.5")),
    (HEADS, ".permute(1, 3, 0, 2, 4)", ".permute(1, 3, 2, 0, 4)", (".permute(1, 3, 0, 2, 4).reshape(B, T, 3 * D)",)),
    (HELD, "dlogvar = 0.5 * dz", "dlogvar = dz", ("dz * eps * std / 2", "0.5 * dz")),
]


def _check(text: str) -> Any:
    space, rng = of_source(text), np.random.default_rng(1)
    torch.manual_seed(1)
    if "Attention" in space:
        return cr.check(space["Attention"](8, 2), torch.randn(2, 4, 8))
    if "Coder" in space:
        return cr.check(space["Coder"](rng.normal(size=(5, 2))).loss, rng.normal(size=(2, 5)), rng.normal(size=(2, 2)))
    if "pool_forward" in space:
        return cr.check(space["pool_backward"], rng.normal(size=(2, 4, 4, 6)), forward=space["pool_forward"])
    given = rng.normal(size=(3, 4, 3, 5)), rng.normal(size=(1, 4, 1, 1)), rng.normal(size=(1, 4, 1, 1))
    return cr.check(space["norm_backward"], *given, forward=space["norm_forward"])


@pytest.mark.parametrize("text", [GROUPS, POOLS, HEADS, HELD])
def test_what_is_right_passes(text: str) -> None:
    assert _check(text).ok


@pytest.mark.parametrize(("text", "right", "wrong", "written"), RIGHT_FOR_MORE)
def test_a_repair_is_right_for_other_numbers(
    text: str, right: str, wrong: str, written: tuple[str, ...] | None
) -> None:
    assert text.count(right) == 1
    (finding,) = _check(text.replace(right, wrong)).findings
    assert finding.proved
    said = finding.repair.replace("d ** 0.5", "d**0.5")
    assert written is None or any(words in said for words in written), finding.repair


def test_an_axis_is_no_other_number_that_is_equal_to_it() -> None:
    text = HEADS.replace("(datt * self.att).sum(-1", "(datt * self.att).sum(-2")
    torch.manual_seed(1)
    (finding,) = cr.check(of_source(text)["Attention"](12, 3), torch.randn(2, 5, 12)).findings
    assert finding.repair == "ds = self.att * (datt - (datt * self.att).sum(-1, keepdim=True))"


LINEAR = """\
def step(x, y, w):
    err = x @ w - y
    loss = 0.5 * (err**2).sum()
    NAME = x.T @ err
    return loss, NAME
"""


@pytest.mark.parametrize("name", ["grad", "g", "gradient", "dw"])
def test_one_gradient_without_a_telling_name_is_of_what_has_its_shape(name: str) -> None:
    rng = np.random.default_rng(2)
    given = rng.normal(size=(6, 3)), rng.normal(size=6), rng.normal(size=3)
    assert cr.check(of_source(LINEAR.replace("NAME", name))["step"], *given).ok
    text = LINEAR.replace("NAME", name).replace("x.T @ err", "2 * x.T @ err")
    (finding,) = cr.check(of_source(text)["step"], *given).findings
    assert finding.line == 4 and finding.proved
