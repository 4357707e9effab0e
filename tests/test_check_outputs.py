"""`check`: forward passes that return more than one value: each is an output with an upstream gradient, or is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_forms import module, n, t

import chainrule as cr
from chainrule.diagnosis.report import Report

FILE = """\
import numpy as np
import torch


def pair_forward(x, w):
    return x @ w, x ** 2


def pair_backward(dout, dsq, x, w):
    dx = dout @ w.T + 2 * x * dsq
    return dx, x.T @ dout


def scalar_forward(x, w):
    return x @ w, float((x ** 2).sum())


def scalar_backward(dout, dreg, x, w):
    return dout @ w.T + 2 * x * dreg, x.T @ dout


def cached_forward(x):
    m = x.mean()
    return np.exp(x - m), x - m


def cached_backward(dout, diff):
    d = dout * np.exp(diff)
    return d - d.mean()


def attention_forward(q, k, v):
    s = q @ k.T
    e = np.exp(s - s.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return p @ v, p


def attention_backward(dout, q, k, v, p):
    dp = dout @ v.T
    ds = p * (dp - (dp * p).sum(1, keepdims=True))
    return ds @ k, ds.T @ q, p.T @ dout


def norm_forward(x, gamma, running):
    mu, var = x.mean(0), x.var(0)
    running = 0.9 * running + 0.1 * mu
    xh = (x - mu) / np.sqrt(var + 1e-5)
    return gamma * xh, running, var, (xh, gamma, var)


def norm_backward(dout, cache):
    xh, gamma, var = cache
    dgamma = (dout * xh).sum(0)
    dxh = dout * gamma
    dx = (dxh - dxh.mean(0) - xh * (dxh * xh).mean(0)) / np.sqrt(var + 1e-5)
    return dx, dgamma


def cost(x, w, lam=0.5, eps=0.1):
    return ((x @ w) ** 2).mean() + lam * (w ** 2).sum() + eps


def cost_backward(x, w, lam=0.5, scale=2):
    dw = x.T @ (x @ w) * scale / len(x) + scale * lam * w
    return dw


def penalty(w, lam=0.5):
    out = lam * w ** 2
    return out


def penalty_backward(dout, w, lam):
    return 2 * lam * w * dout


def entropy_forward(z, y):
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return -np.log(p[np.arange(len(y)), y]).mean(), p


def entropy_backward(p, y):
    d = p.copy()
    d[np.arange(len(y)), y] -= 1
    return d / len(y)


def cell_forward(h, c, w):
    a = np.tanh(h @ w)
    next_c = c + a
    h2 = next_c * a
    return h2, next_c, (h, w, a, next_c)


def cell_backward(dc, dh, cache):
    h, w, a, next_c = cache
    dc = dc + dh * a
    da = (dc + dh * next_c) * (1 - a ** 2)
    return da @ w.T, dc, h.T @ da


def keyword_forward(x, *, w):
    return x @ w


def keyword_backward(dout, x, *, w):
    return dout @ w.T, x.T @ dout


class Scale:
    @staticmethod
    def forward(x, w):
        out = x * w
        cache = (x, w)
        return out, cache

    @staticmethod
    def backward(dout, cache):
        x, w = cache
        dw = (dout * x).sum((0, 1))
        dx = dout * w
        return dx, dw


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2, 3, generator=torch.Generator().manual_seed(5)))

    def forward(self, x):
        self.x = x
        return x @ self.weight.T

    def backward(self, g):
        self.weight.grad = g.T @ self.x
        return g @ self.weight


class Heads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = Linear(), Linear()

    def forward(self, x):
        return self.a(x), self.b(x)


class Optional(Heads):
    def backward(self, da, db=None):
        dx = self.a.backward(da)
        return dx if db is None else dx + self.b.backward(db)


class Unpacked(Heads):
    def backward(self, grads):
        da, db = grads
        return self.a.backward(da) + self.b.backward(db)


class Indexed(Heads):
    def backward(self, grads):
        return self.a.backward(grads[0]) + self.b.backward(grads[1])


class Starred(Heads):
    def backward(self, *grads):
        return self.a.backward(grads[0]) + self.b.backward(grads[1])


class Named(Heads):
    def forward(self, x):
        return {"a": self.a(x), "b": self.b(x)}

    def backward(self, grads):
        return self.a.backward(grads["a"]) + self.b.backward(grads["b"])
"""
CASES: dict[str, tuple[tuple[Any, ...], str, str, str]] = {  # name: inputs, a change that is a mistake, what is wrong
    "pair_backward": ((n(2, 3), n(3, 2, seed=1)), "2 * x * dsq", "x * dsq", "x"),
    "scalar_backward": ((n(2, 3), n(3, 2, seed=1)), "2 * x * dreg", "3 * x * dreg", "x"),
    "cached_backward": ((n(5),), "d - d.mean()", "d", "x"),
    "attention_backward": ((n(4, 3), n(4, 3, seed=1), n(4, 3, seed=2)), "p.T @ dout", "p @ dout", "v"),
    "norm_backward": ((n(4, 3), n(3), np.zeros(3)), "xh * (dxh * xh).mean(0)", "xh * (dxh * xh).sum(0)", "x"),
    "cost_backward": ((n(4, 3), n(3)), "scale * lam * w", "scale * w", "w"),
    "penalty_backward": ((n(3),), "2 * lam * w", "lam * w", "w"),
    "entropy_backward": ((n(4, 3), np.array([0, 2, 1, 1])), "d / len(y)", "d", "z"),
    "cell_backward": ((n(2, 3), n(2, 3, seed=1), n(3, 3)), "dc = dc + dh * a", "dc = dc - dh * a", "c"),
    "keyword_backward": ((n(2, 3), {"w": n(3, 4)}), "return dout @ w.T", "return -dout @ w.T", "x"),
    "Scale": ((t(2, 3, 4), t(4)), "(dout * x).sum((0, 1))", "(dout * x).mean((0, 1))", "w"),
    "Optional": ((t(4, 3),), "dx + self.b.backward(db)", "dx - self.b.backward(db)", "x"),
    "Unpacked": ((t(4, 3),), "da, db = grads", "db, da = grads", "b.weight"),
    "Indexed": ((t(4, 3),), "self.b.backward(grads[1])", "self.b.backward(-grads[1])", "x"),
    "Starred": ((t(4, 3),), "self.b.backward(grads[1])", "self.b.backward(-grads[1])", "x"),
    "Named": ((t(4, 3),), 'self.b.backward(grads["b"])', 'self.b.backward(-grads["b"])', "x"),
}


def checked(code: Any, inputs: tuple[Any, ...]) -> Report:
    named = inputs[-1] if isinstance(inputs[-1], dict) else {}
    return cr.check(code, *(i for i in inputs if i is not named), **named)


@pytest.mark.parametrize("name", CASES)
def test_right(tmp_path: Path, name: str) -> None:
    report = checked(getattr(module(tmp_path, FILE), name), CASES[name][0])
    assert report.ok, str(report)


@pytest.mark.parametrize("name", CASES)
def test_wrong(tmp_path: Path, name: str) -> None:
    inputs, right, wrong, of = CASES[name]
    assert right in FILE
    report = checked(getattr(module(tmp_path, FILE.replace(right, wrong)), name), inputs)
    told = {row.name for row in report.rows if row.status == "wrong"}
    assert f"{of}.g" in told or of in told, str(report)


def test_every_output_is_looked_at(tmp_path: Path) -> None:
    """The second head is checked where its upstream gradient may be left out."""
    report = cr.check(module(tmp_path, FILE).Optional, torch.randn(4, 3))
    assert {row.name for row in report.rows} == {"a.weight", "b.weight", "x"}


def test_what_is_taken_from_several_gradients_otherwise_is_refused(tmp_path: Path) -> None:
    code = module(tmp_path, FILE.replace("da, db = grads", "da, db = (*reversed(grads), )"))
    with pytest.raises(cr.ChainruleError, match=r"first of 2 outputs .* backward\(self, da, db\)"):
        cr.check(code.Unpacked, torch.randn(4, 3))


def both(x: Any, y: Any) -> Any:
    return x + y, x * y


def of_a_call(x: Any, y: Any) -> Any:
    return both(x, y)


def of_a_name(x: Any, y: Any) -> Any:
    out = both(x, y)
    return out


def right_backward(ds: Any, dp: Any, x: Any, y: Any) -> Any:
    return ds + dp * y, ds + dp * x


def wrong_backward(ds: Any, dp: Any, x: Any, y: Any) -> Any:
    return ds + 0 * dp, ds + 0 * dp


@pytest.mark.parametrize("forward", [both, of_a_call, of_a_name])
def test_outputs_of_a_tuple_that_is_made_elsewhere(forward: Any) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 3))
    assert cr.check(right_backward, x, y, forward=forward).ok
    assert not cr.check(wrong_backward, x, y, forward=forward).ok
