"""`check`: one wrong line in programs of several fields, what is said of it, and whether its repair holds for other data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source
from sweeps import of_today

import chainrule as cr

NORM = """\
import numpy as np


def forward(x, gamma, beta):
    xmu = x - np.mean(x, axis=0)
    sq = xmu**2
    var = np.mean(sq, axis=0)
    sqrtvar = np.sqrt(var + 1e-5)
    ivar = 1.0 / sqrtvar
    xhat = xmu * ivar
    return gamma * xhat + beta, (xhat, gamma, xmu, ivar, sqrtvar)


def backward(dout, cache):
    xhat, gamma, xmu, ivar, sqrtvar = cache
    n, d = dout.shape
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    divar = np.sum(dxhat * xmu, axis=0)
    dxmu1 = dxhat * ivar
    dsqrtvar = -1.0 / sqrtvar**2 * divar
    dvar = 0.5 / sqrtvar * dsqrtvar
    dsq = np.ones((n, d)) / n * dvar
    dxmu2 = 2 * xmu * dsq
    dx1 = dxmu1 + dxmu2
    dmu = -np.sum(dx1, axis=0)
    return dx1 + np.ones((n, d)) / n * dmu, dgamma, dbeta


def loss(x, gamma, beta, y):
    out, cache = forward(x, gamma, beta)
    dx, dgamma, dbeta = backward(2 * (out - y), cache)
    return ((out - y) ** 2).sum(), {"x": dx, "gamma": dgamma, "beta": dbeta}
"""
GATED = """\
import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def step(x, h, p):
    z = sigmoid(x @ p["wz"] + h @ p["uz"])
    r = sigmoid(x @ p["wr"] + h @ p["ur"])
    n = np.tanh(x @ p["wn"] + (r * h) @ p["un"])
    return (1 - z) * n + z * h, (x, h, z, r, n)


def step_back(dnew, cache, p, grads):
    x, h, z, r, n = cache
    dz = dnew * (h - n)
    dan = dnew * (1 - z) * (1 - n**2)
    drh = dan @ p["un"].T
    dh = dnew * z + drh * r
    daz = dz * z * (1 - z)
    dar = drh * h * r * (1 - r)
    grads["wn"] += x.T @ dan
    grads["un"] += (r * h).T @ dan
    grads["wz"] += x.T @ daz
    grads["uz"] += h.T @ daz
    grads["wr"] += x.T @ dar
    grads["ur"] += h.T @ dar
    return dh + daz @ p["uz"].T + dar @ p["ur"].T


def loss(xs, y, h, p):
    caches = []
    for t in range(len(xs)):
        h, cache = step(xs[t], h, p)
        caches.append(cache)
    grads = {k: np.zeros_like(v) for k, v in p.items()}
    dh = h - y
    for t in reversed(range(len(xs))):
        dh = step_back(dh, caches[t], p, grads)
    return 0.5 * ((h - y) ** 2).sum(), grads
"""
RATINGS = """\
import numpy as np


def loss(p, users, ratings, reg):
    err = p["bu"][users] + p["mean"] - ratings
    n = len(ratings)
    root = np.sqrt(1 + err**2)
    derr = err / root / n
    dbu = 2 * reg * p["bu"]
    np.add.at(dbu, users, derr)
    return (root - 1).sum() / n + reg * (p["bu"] ** 2).sum(), {"bu": dbu, "mean": derr.sum()}
"""
MIXTURE = """\
import numpy as np


def loss(x, mu, logs):
    N, D = x.shape
    diff = x[:, None, :] - mu[None, :, :]
    prec = np.exp(-2 * logs)
    joint = -0.5 * (diff**2 * prec).sum(-1) - logs.sum(-1)
    ll = np.log(np.exp(joint).sum(1, keepdims=True))
    resp = np.exp(joint - ll)
    Nk = resp.sum(0)
    dmu = -(resp[:, :, None] * diff * prec).sum(0) / N
    dlogs = (resp[:, :, None] * (1 - diff**2 * prec)).sum(0) / N
    return -ll.mean(), dmu, dlogs
"""
SLOPES = """\
import numpy as np


def loss(x, w, slope, y):
    a = x @ w
    h = np.where(a > 0, a, slope * a)
    dh = 2 * (h - y)
    dslope = (dh * np.where(a > 0, 0, a)).sum(axis=0)
    da = dh * np.where(a > 0, 1, slope)
    return ((h - y) ** 2).sum(), {"w": x.T @ da, "slope": dslope}
"""
GELU = """\
import math

import torch


def gelu_prime(x):
    cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    pdf = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return cdf + x * pdf


def loss(x, w, y):
    h = x @ w
    a = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    out = ((a - y) ** 2).sum()
    a.g = 2 * (a - y)
    h.g = a.g * gelu_prime(h)
    w.g = x.T @ h.g
    return out
"""
VARIANCE = """\
import torch


def loss(mu, logvar, eps, y, beta):
    std = torch.exp(0.5 * logvar)
    z = mu + eps * std
    out = ((z - y) ** 2).sum() + beta * -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
    z.g = 2 * (z - y)
    mu.g = z.g + beta * mu
    std.g = z.g * eps
    logvar.g = std.g * 0.5 * std + beta * 0.5 * (logvar.exp() - 1)
    return out
"""
POOLED = """\
import numpy as np


class Pool:
    def forward(self, x):
        n, c, h, w = x.shape
        self.shape = x.shape
        win = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
        self.arg = win.argmax(axis=-1)
        return win.max(axis=-1)

    def backward(self, g):
        n, c, h, w = self.shape
        d = np.zeros((n, c, h // 2, w // 2, 4))
        np.put_along_axis(d, self.arg[..., None], g[..., None], axis=-1)
        return d.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(self.shape)


class Average:
    def forward(self, x):
        self.shape = x.shape
        return x.mean(axis=(2, 3))

    def backward(self, g):
        n, c, h, w = self.shape
        return np.broadcast_to(g[:, :, None, None], self.shape) / (h * w)


def loss(x, gamma, y):
    pool, average = Pool(), Average()
    scaled = x * gamma
    out = average.forward(pool.forward(scaled))
    dscaled = pool.backward(average.backward(2 * (out - y)))
    return ((out - y) ** 2).sum(), {"gamma": (dscaled * x).sum((0, 2, 3), keepdims=True)}
"""
Given = dict[str, Any]


def _normal(seed: int, **shapes: tuple[int, ...]) -> Given:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def _gated(n: int) -> Given:
    p = _normal(n, **{k: (2 if k[0] == "w" else 3, 3) for k in ("wz", "wr", "wn", "uz", "ur", "un")})
    return {"p": p, **_normal(n + 1, xs=(n, 4, 2), y=(4, 3), h=(4, 3))}


def _tensors(given: Given) -> Given:
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}


PROGRAMS: dict[str, tuple[str, Callable[[int], Given]]] = {
    "norm": (NORM, lambda n: _normal(n, x=(n + 3, 4), gamma=(4,), beta=(4,), y=(n + 3, 4))),
    "gated": (GATED, _gated),
    "ratings": (
        RATINGS,
        lambda n: {"p": {"bu": _normal(n, bu=(4,))["bu"], "mean": np.array(0.3)}, "users": np.arange(n + 3) % 4,
                   "ratings": _normal(n + 1, r=(n + 3,))["r"], "reg": 0.1 * n},
    ),
    "mixture": (MIXTURE, lambda n: _normal(n, x=(n + 4, 3), mu=(4, 3), logs=(4, 3))),
    "slopes": (SLOPES, lambda n: _normal(n, x=(n + 2, 3), w=(3, 4), slope=(4,), y=(n + 2, 4))),
    "gelu": (GELU, lambda n: _tensors(_normal(n, x=(n + 2, 3), w=(3, 4), y=(n + 2, 4)))),
    "variance": (
        VARIANCE,
        lambda n: _tensors({**_normal(n, mu=(n, 3), logvar=(n, 3), eps=(n, 3), y=(n, 3)), "beta": 0.5 if n == 3 else 0.2}),
    ),
    "pooled": (POOLED, lambda n: _normal(n, x=(n, 3, 4, 2 * n), gamma=(1, 3, 1, 1), y=(n, 3))),
}  # fmt: skip
LINES = [  # the program; what is right, and what stands there; the causes that may be named
    ("norm", "divar = np.sum(dxhat * xmu, axis=0)", "divar = dxhat * xmu", ("missing-broadcast-sum",)),
    ("norm", "dx1 = dxmu1 + dxmu2", "dx1 = dxmu1", ("lost-path",)),
    ("gated", "dz = dnew * (h - n)", "dz = dnew * (n - h)", ("sign",)),
    ("gated", 'grads["wz"] += x.T @ daz', 'grads["wz"] = x.T @ daz', ("overwritten-not-accumulated",)),
    ("ratings", "derr = err / root / n", "derr = err / n", ("missing-factor",)),
    ("ratings", 'dbu = 2 * reg * p["bu"]', 'dbu = np.zeros_like(p["bu"])', ("lost-path",)),
    ("mixture", "* prec).sum(0) / N", "* prec).sum(0) / Nk[:, None]", ("wrong-factor", "wrong-tensor")),
    ("mixture", "-(resp[:, :, None] * diff * prec).sum(0)", "-(diff * prec).sum(0)", ("missing-factor",)),
    ("slopes", "np.where(a > 0, 0, a)", "np.where(a > 0, 0, slope)", ("wrong-tensor",)),
    ("slopes", "da = dh * np.where(a > 0, 1, slope)", "da = dh * (a > 0)", ("lost-path", "wrong-factor")),
    ("gelu", "/ math.sqrt(2 * math.pi)", "/ (2 * math.pi)", ("wrong-scale", "wrong-term-scale", "wrong-exponent")),
    ("variance", "0.5 * (logvar.exp() - 1)", "0.5 * (std - 1)", ("wrong-exponent", "wrong-tensor")),
    ("pooled", ", self.shape) / (h * w)", ", self.shape)", ("wrong-scale",)),
    ("pooled", ".transpose(0, 1, 2, 4, 3, 5).reshape(self.shape)", ".reshape(self.shape)", ("transposed",)),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_right_passes(name: str) -> None:
    text, given = PROGRAMS[name]
    assert cr.check(of_source(text)["loss"], **given(3)).ok


@pytest.mark.parametrize("name, right, wrong, causes", of_today(LINES, 2))
def test_one_wrong_line_is_one_finding(name: str, right: str, wrong: str, causes: tuple[str, ...]) -> None:
    text, given = PROGRAMS[name]
    assert text.count(right) == 1
    lines = text.replace(right, wrong).splitlines()
    (finding,) = cr.check(of_source("\n".join(lines))["loss"], **given(3)).findings
    changed = [k for k, (a, b) in enumerate(zip(lines, text.splitlines(), strict=True)) if a != b]
    assert [finding.line - 1] == changed
    assert finding.cause in causes and finding.proved, finding.message
    mended = "\n".join(finding.edit.applied(lines))
    _same(_gradients(mended, given(5)), _gradients(text, given(5)))


def _gradients(text: str, given: Given) -> list[Any]:
    """What a program gives for its parameters: in a tuple, a dictionary, or left in `.g`."""
    returned = of_source(text)["loss"](**given)
    if isinstance(returned, torch.Tensor):
        return [held.g.numpy() for held in given.values() if hasattr(held, "g")]
    found = list(returned[1:])
    return [v for part in found for v in (part.values() if isinstance(part, dict) else [part])]


def _same(found: list[Any], truth: list[Any]) -> None:
    assert len(found) == len(truth) > 0
    assert all(np.allclose(one, other) for one, other in zip(found, truth, strict=True))
