"""Repairs hold for other data: the program with the edits made is right for other sizes, numbers and callers, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr


def mended(text: str, check: Callable[[dict[str, Any], int], Any]) -> str:
    """The repair of the one finding, proved; with it the program is right for the other data that `check` makes, too."""
    report = check(of_source(text, np=np), 0)
    (finding,) = report.findings
    assert finding.proved and finding.edit is not None, str(report)
    after = "\n".join(finding.edit.applied(text.splitlines())) + "\n"
    for seed in (0, 1, 2):
        then = check(of_source(after, np=np), seed)
        assert then.ok, f"{finding}\n{then}"
    return finding.repair


MIXTURE = """
def forward(h, target, wm, ws):
    n, k = target.shape
    m = ws.shape[1]
    mean = (h @ wm).reshape(n, m, k)
    logsig = h @ ws
    resid = target[:, None, :] - mean
    quad = (resid**2).sum(2) * np.exp(-2 * logsig)
    return (0.5 * quad + k * logsig + HIDDEN).mean(), (h, logsig, resid, quad)


def backward(dloss, cache):
    h, logsig, resid, quad = cache
    n, m, k = resid.shape
    dcomp = dloss * np.ones((n, m)) / (n * m)
    dmean = -dcomp[:, :, None] * resid * np.exp(-2 * logsig)[:, :, None]
    dlogsig = dcomp * (k - quad)
    return h.T @ dmean.reshape(n, m * k), h.T @ dlogsig
"""


def mixture(space: dict[str, Any], seed: int) -> Any:
    n, d, k, m = [(6, 4, 2, 3), (5, 3, 3, 4), (4, 2, 4, 3)][seed]
    r = np.random.RandomState(seed)
    args = r.randn(n, d), r.randn(n, k), r.randn(d, m * k) * 0.5, r.randn(d, m) * 0.3
    forward, backward = space["forward"], space["backward"]

    def step(h: Any, target: Any, wm: Any, ws: Any) -> Any:
        loss, cache = forward(h, target, wm, ws)
        dwm, dws = backward(1.0, cache)
        return loss, {"wm": dwm, "ws": dws}

    return cr.check(step, *args)


@pytest.mark.parametrize("hidden", ["0", "0.5 * k * np.log(2 * np.pi)"])  # which Python makes a plain number of
@pytest.mark.parametrize("wrong", ["1 - quad", "3 - quad", "m - quad"])
def test_a_size_in_a_sum_is_written_as_one(hidden: str, wrong: str) -> None:
    repair = mended(MIXTURE.replace("HIDDEN", hidden).replace("k - quad", wrong), mixture)
    assert repair == "dlogsig = dcomp * (k - quad)"


POWER = """
def forward(x, g):
    q = 1 / (1 + np.exp(-x))
    return (q**g * x).mean(), (x, q, g)


def backward(cache):
    x, q, g = cache
    dx = q ** g * (1 + g * (1 - q) * x) / x.size
    return dx
"""


def power(space: dict[str, Any], seed: int) -> Any:
    x, g = np.random.RandomState(seed).randn(6), [3.0, 2.0, 4.5][seed]

    def step(x: Any) -> Any:
        loss, cache = space["forward"](x, g)
        return loss, {"x": space["backward"](cache)}

    return cr.check(step, x)


@pytest.mark.parametrize("wrong", ["q ** (g - 1) *", "q ** (g + 1) *"])
def test_a_power_is_written_as_in_the_forward_pass(wrong: str) -> None:
    repair = mended(POWER.replace("q ** g *", wrong), power)
    assert repair == "dx = q ** g * (1 + g * (1 - q) * x) / x.size"


LAYERS = """
class Dense:
    def __init__(self, w):
        self.w = w

    def forward(self, x):
        self.x = x
        return x @ self.w

    def backward(self, dout):
        self.dw = self.x.T @ dout
        return dout @ self.w.T


def step(x, t, w0, w1, decay):
    layers = {"w0": Dense(w0), "w1": Dense(w1)}
    penalty = 0
    for layer in layers.values():
        x = np.tanh(layer.forward(x))
        layer.out = x
        penalty = penalty + 0.5 * decay * np.sum(layer.w ** 2)
    loss = ((x - t) ** 2).sum() + penalty
    grads = {}
    d = 2 * (x - t)
    for name in reversed(list(layers)):
        layer = layers[name]
        d = layer.backward(d * (1 - layer.out ** 2))
        grads[name] = layer.dw + decay * layer.w
    return loss, grads
"""


def layers(space: dict[str, Any], seed: int) -> Any:
    r = np.random.RandomState(seed)
    n, d, h = [(4, 5, 3), (3, 4, 2), (2, 6, 5)][seed]
    decay = [0.01, 0.3, 0.05][seed]
    return cr.check(space["step"], r.randn(6, n), r.randn(6, h), r.randn(n, d), r.randn(d, h), decay)


def test_what_a_loss_adds_for_all_layers_is_added_by_its_own_code() -> None:
    repair = mended(LAYERS.replace("layer.dw + decay * layer.w", "layer.dw"), layers)
    assert repair == "grads[name] = layer.dw + decay * layer.w"


KEPT = """
def step(x, t, w0, w1, decay):
    first, second = Dense(w0), Dense(w1)
    h = np.tanh(first.forward(x))
    e = second.forward(h) - t
    loss = (e ** 2).sum() + 0.5 * decay * (np.sum(first.w ** 2) + np.sum(second.w ** 2))
    dh = second.backward(2 * e)
    first.backward(dh * (1 - h ** 2))
    first.dw += decay * first.w
    second.dw += decay * second.w
    return loss, {"w0": first.dw, "w1": second.dw}
"""


@pytest.mark.parametrize(("layer", "w"), [("first", "w0"), ("second", "w1")])
def test_what_a_loss_adds_for_one_layer_is_added_where_that_is_called(layer: str, w: str) -> None:
    line = f"{layer}.dw += decay * {layer}.w"
    repair = mended(LAYERS.partition("def step")[0] + KEPT.replace(f"    {line}\n", ""), layers)
    assert repair in (line, f"{layer}.dw += decay * {w}")


RESIDUAL = """
def block(x, w):
    return np.tanh(x @ w)


def block_backward(d, x, w, h):
    dz = d * (1 - h**2)
    return dz @ w.T, x.T @ dz


def step(x, w1, w2, t):
    h = block(x, w1)
    o = block(h, w2)
    y = o + h
    u = y + x
    e = u - t
    loss = (e**2).sum()
    du = 2 * e
    dh, dw2 = block_backward(du, h, w2, o)
    dh = dh + du
    dx, dw1 = block_backward(dh, x, w1, h)
    dx = dx + du
    return loss, dx, dw1, dw2
"""


def residual(space: dict[str, Any], seed: int) -> Any:
    r = np.random.RandomState(seed)
    return cr.check(space["step"], r.randn(5, 4), r.randn(4, 4), r.randn(4, 4), r.randn(5, 4))


@pytest.mark.parametrize("line", ["dh = dh + du", "dx = dx + du"])
def test_a_path_of_one_caller_is_not_added_in_what_all_call(line: str) -> None:
    assert mended(RESIDUAL.replace(f"    {line}\n", ""), residual) == line


ONCE = """
def step(x, w1, w2, t):
    h = block(x, w1)
    y = h + x
    e = y @ w2 - t
    loss = (e**2).sum()
    dy = 2 * e @ w2.T
    dw2 = y.T @ (2 * e)
    dx, dw1 = block_backward(dy, x, w1, h)
    dx = dx + dy
    return loss, dx, dw1, dw2
"""


def test_a_path_of_the_caller_is_added_there_where_it_is_the_only_one() -> None:
    text = RESIDUAL.partition("def step")[0] + ONCE.replace("    dx = dx + dy\n", "")
    assert mended(text, residual) == "dx = dx + dy"


NORM = """
def forward(x, gamma, beta, eps=1e-5):
    xc = x - x.mean(axis=0)
    std = np.sqrt(np.mean(xc**2, axis=0) + eps)
    xhat = xc / std
    return gamma * xhat + beta, (xc, std, xhat, gamma)


def backward(dout, cache):
    xc, std, xhat, gamma = cache
    N = dout.shape[0]
    dbeta = dout.sum(axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    dxc = dxhat / std
    dstd = -np.sum(dxhat * xc, axis=0) / std**2
    dvar = 0.5 * dstd / std
    dxc += (2.0 / N) * xc * dvar
    dmu = -np.sum(dxc, axis=0)
    dx = dxc + dmu / N
    return dx, dgamma, dbeta
"""


def norm(space: dict[str, Any], seed: int) -> Any:
    r, n = np.random.RandomState(seed), [7, 5, 9][seed]
    return cr.check(space["backward"], r.randn(n, 3), r.randn(3), r.randn(3), forward=space["forward"])


def test_a_number_of_this_batch_is_written_as_it_was_computed() -> None:
    mended(NORM.replace("dxc + dmu / N", "dxc"), norm)


GAUSS = """
import math

def step(mu, sigma, xs):
    n = len(xs)
    loss = n * math.log(sigma) + sum((x - mu) ** 2 for x in xs) / (2 * sigma**2)
    dmu = sum(mu - x for x in xs) / sigma**2
    dsigma = n / sigma - sum((x - mu) ** 2 for x in xs) / sigma**3
    return loss, dmu, dsigma
"""


def gauss(space: dict[str, Any], seed: int) -> Any:
    data = [[1.0, 2.0, 4.0], [1.0, 2.0, 4.0, 5.0], [0.5, 3.0]][seed]
    return cr.check(space["step"], 0.3, 2.0, data)


@pytest.mark.parametrize("wrong", ["sigma**2", "sigma**4"])
def test_an_exponent_is_no_length_of_a_list(wrong: str) -> None:
    repair = mended(GAUSS.replace("/ sigma**3", f"/ {wrong}"), gauss)
    assert repair.replace(" ", "").endswith("/sigma**3")


VOLUME = """
import math

def step(r, h, ts):
    n = len(ts)
    loss = sum((math.pi * r**2 * h - t) ** 2 for t in ts) / n
    g = sum(2 * (math.pi * r**2 * h - t) for t in ts) / n
    dr = 2 * g * math.pi * r * h
    dh = g * math.pi * r**2
    return loss, dr, dh
"""


def volume(space: dict[str, Any], seed: int) -> Any:
    return cr.check(space["step"], 1.3, 2.2, [[1.0, 2.0], [1.0, 2.0, 4.0], [3.0]][seed])


def test_a_factor_two_is_no_length_of_a_list() -> None:
    assert mended(VOLUME.replace("dr = 2 * g", "dr = g"), volume) == "dr = 2 * g * math.pi * r * h"


BACK = """
def back(d, h):
    return h.T @ d


def step(x, y, W, reg=0.25, n=4):
    o = x @ W
    loss = ((o - y) ** 2).sum() / SIZE + reg * (W**2).sum()
    dW = back(GRADIENT, x) + 2 * reg * W
    return loss, dW
"""


@pytest.mark.parametrize("reg", [0.25, 0.5, 4.0])
def test_a_number_that_has_a_name_goes_by_it(reg: float) -> None:
    def check(space: dict[str, Any], seed: int) -> Any:
        r = np.random.RandomState(seed)
        return cr.check(space["step"], r.randn(4, 3), r.randn(4, 2), r.randn(3, 2), reg + seed)

    text = BACK.replace("SIZE", "3").replace("GRADIENT", "2 * (o - y) / 3")
    assert mended(text.replace(" + 2 * reg * W", ""), check) == "dW = back(2 * (o - y) / 3, x) + 2 * reg * W"


@pytest.mark.parametrize("size", ["n", "len(x)"])
def test_a_size_that_is_four_is_no_four(size: str) -> None:
    def check(space: dict[str, Any], seed: int) -> Any:
        r, n = np.random.RandomState(seed), [4, 6, 3][seed]
        return cr.check(space["step"], r.randn(n, 4), r.randn(n, 4), r.randn(4, 4), n=n)

    text = BACK.replace("SIZE", size).replace("GRADIENT", "2 * (o - y)")
    assert mended(text, check) == f"dW = back(2 * (o - y) / {size}, x) + 2 * reg * W"


CUBE = """
def step(a, b, xs):
    loss = sum((a * x) ** 3 + b * x for x in xs)
    da = sum(3 * (a * x) * x for x in xs)
    db = sum(xs)
    return loss, da, db
"""


@pytest.mark.parametrize("wrong, proved", [("3 * (a * x) * x", True), ("3 * (a + x) * x", False)])
def test_what_is_written_with_the_data_is_not_proved(wrong: str, proved: bool) -> None:
    text = CUBE.replace("3 * (a * x) * x", wrong)
    (finding,) = cr.check(of_source(text, np=np)["step"], 0.3, 2.0, [1.0, 2.0, 4.0]).findings
    assert finding.proved == proved and "4.0" not in finding.repair
    assert not proved or finding.edit.lines == ("    da = sum(3 * (a * x) ** 2 * x for x in xs)",)


class Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, dim: int, temperature: float) -> Any:
        e = torch.exp((x - x.amax(dim, keepdim=True)) / temperature)
        p = e / e.sum(dim, keepdim=True)
        ctx.dim, ctx.temperature = dim, temperature
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, dp: Any) -> Any:
        (p,) = ctx.saved_tensors
        inner = dp * p
        dx = p * (dp - inner) / ctx.temperature
        return dx, None, None


class Unscaled(Softmax):
    @staticmethod
    def backward(ctx: Any, dp: Any) -> Any:
        (p,) = ctx.saved_tensors
        inner = (dp * p).sum(ctx.dim, keepdim=True)
        dx = p * (dp - inner)
        return dx, None, None


@pytest.mark.parametrize(("code", "text"), [(Softmax, ".sum(ctx.dim, keepdim=True)"), (Unscaled, "/ ctx.temperature")])
def test_what_a_function_keeps_is_written_under_its_name(code: Any, text: str) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    (found,) = cr.check(code, x, 1, 0.7).findings
    assert found.proved and found.repair.endswith(text), str(found)
