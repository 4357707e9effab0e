"""`check`: layers with a backward pass of their own, where what holds them is a module of torch's, and layers that give
several outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_check_forms import defined
from torch import nn

import chainrule as cr

HEAD = """\
import numpy as np
import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.w, self.b = WRAPPED(torch.randn(i, o)), WRAPPED(torch.randn(o))

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, d):
        self.dw = self.x.T @ d
        self.db = d.sum(0)
        return d @ self.w.T


class Tanh(nn.Module):
    def forward(self, x):
        self.y = torch.tanh(x)
        return self.y

    def backward(self, d):
        return d * (1 - self.y ** 2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.rest = Linear(4, 5), nn.Sequential(Tanh(), Linear(5, 3))

    def forward(self, x):
        return self.rest(self.first(x))

    def backward(self, d):
        for layer in reversed(self.rest):
            d = layer.backward(d)
        return self.first.backward(d)


"""

STEP = """\
def step(x, y):
    out = x
    FORWARD
    loss = (out - y).pow(2).mean()
    d = 2 * (out - y) / out.numel()
    BACKWARD
    return loss
"""


LAYERS = "Linear(4, 5), Tanh(), Linear(5, 3)"
HOLDERS = {
    "net = nn.Sequential(LAYERS)": ("out = net(out)", "for layer in reversed(net): d = layer.backward(d)"),
    "net = nn.ModuleList([LAYERS])": (
        "for layer in net: out = layer(out)",
        "for layer in reversed(net): d = layer.backward(d)",
    ),
    "net = nn.ModuleDict(zip('abc', [LAYERS]))": (
        "for layer in net.values(): out = layer(out)",
        "for layer in reversed(list(net.values())): d = layer.backward(d)",
    ),
    "net = Model()": ("out = net(out)", "net.backward(d)"),
}


@pytest.mark.parametrize("wrapped", ["torch.asarray", "nn.Parameter"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_layers_that_a_module_of_torch_holds(holder: str, wrapped: str) -> None:
    forward, backward = HOLDERS[holder]
    text = HEAD.replace("WRAPPED", wrapped) + holder.replace("LAYERS", LAYERS) + "\n\n\n"
    text += STEP.replace("FORWARD", forward).replace("BACKWARD", backward)
    args = torch.randn(6, 4), torch.randn(6, 3)
    r = cr.check(defined(text, "step"), *args)
    assert r.ok and len(r.rows) == 4, str(r)
    (finding,) = cr.check(defined(text.replace("d.sum(0)", "d.mean(0)"), "step"), *args).findings
    assert (finding.cause, finding.repair, finding.proved) == ("wrong-scale", "self.db = d.sum(0)", True), str(finding)
    assert finding.name.startswith("net"), finding.name


def test_a_module_is_checked_with_the_layers_that_it_holds() -> None:
    model = defined(HEAD.replace("WRAPPED", "torch.asarray"), "Model")()
    assert isinstance(model, nn.Module)
    r = cr.check(model, torch.randn(6, 4))
    assert r.ok and len(r.rows) == 5, str(r)


SEVERAL = {
    "class": """\
import np_or_torch as np

class Branch:
    def __init__(self):
        self.w = np.ones((3, 2))

    def forward(self, x):
        self.x = x
        return x, np.tanh(x), x @ self.w

    def backward(self, a, b, c):
        self.dw = self.x.T @ c
        return a + b * (1 - np.tanh(self.x) ** 2) + c @ self.w.T

code = Branch()
""",
    "the same twice": """\
class Branch:
    def forward(self, x):
        return x, x, x * 2

    def backward(self, a, b, c):
        return a + b + c * 2

code = Branch()
""",
    "functions": """\
import np_or_torch as np

def split_forward(x, s):
    left = x * s
    right = np.exp(x)
    return left, right

def split_backward(dleft, dright, x, s, right):
    dx = dleft * s + dright * right
    ds = (dleft * x).sum(0)
    return dx, ds

code = split_backward
""",
    "functions with a cache": """\
import np_or_torch as np

def step_forward(x, c, w):
    next_h = np.tanh(x @ w + c)
    next_c = c * next_h
    cache = x, c, w, next_h
    return next_h, next_c, cache

def step_backward(dnext_h, dnext_c, cache):
    x, c, w, h = cache
    dz = (dnext_h + dnext_c * c) * (1 - h * h)
    dx = dz @ w.T
    dc = dnext_c * h + dz
    dw = x.T @ dz
    return dx, dc, dw

code = step_backward
""",
}
MISTAKES = {
    "class": ("+ c @ self.w.T", "- c @ self.w.T"),
    "the same twice": ("+ c * 2", "- c * 2"),
    "functions": ("dright * right", "dleft * right"),
    "functions with a cache": ("dnext_c * h + dz", "dz"),
}


SEVERAL["called"] = SEVERAL["class"].replace("def forward", "def __call__")
MISTAKES["called"] = MISTAKES["class"]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", SEVERAL)
def test_each_of_several_outputs_has_its_own_upstream_gradient(name: str, library: str) -> None:
    text = SEVERAL[name].replace("np_or_torch", library)
    shapes: dict[str, list[tuple[int, ...]]] = {
        "class": [(4, 3)],
        "called": [(4, 3)],
        "the same twice": [(4, 3)],
        "functions": [(4, 3), (3,)],
    }
    generator = torch.Generator().manual_seed(0)
    args: list[Any] = [torch.randn(s, generator=generator) for s in shapes.get(name, [(4, 3), (4, 5), (3, 5)])]
    if library == "numpy":
        args = [a.double().numpy() for a in args]
    r = cr.check(defined(text, "code"), *args)
    assert r.ok and len(r.rows) == len(args) + (name in ("class", "called")), str(r)
    old, new = MISTAKES[name]
    (finding,) = cr.check(defined(text.replace(old, new), "code"), *args).findings
    place, line = next((i, line) for i, line in enumerate(text.splitlines(), 1) if old in line)
    assert (finding.line, finding.repair, finding.proved) == (place, line.strip(), True), str(finding)


def test_what_a_forward_pass_keeps_is_no_output() -> None:
    text = """
    import numpy as np

    def f_forward(x):
        e = np.exp(x)
        return e, 2 * x

    def f_backward(dout, dbl):
        return dout * np.exp(dbl / 2)

    class Layer:
        def forward(self, x):
            return np.exp(x), x

        def backward(self, dout, y):
            return dout * y
    """
    x = torch.randn(4, 3).double().numpy()
    assert cr.check(defined(text, "f_backward"), x).ok
    assert cr.check(defined(text, "Layer")(), x).ok


CELL = """
import numpy as np

def cell_forward(x, a_prev, w, v):
    a_next = np.exp(x @ w + a_prev)
    y = a_next @ v
    cache = (a_next, x, w)
    return a_next, y, cache

def cell_backward(da_next, cache):
    a_next, x, w = cache
    dz = da_next * a_next
    return {"dx": dz @ w.T, "da_prev": dz, "dw": x.T @ dz}
"""


def test_a_cache_is_found_by_its_name_behind_other_outputs() -> None:
    args = [np.random.default_rng(0).normal(size=s) for s in ((4, 3), (4, 5), (3, 5), (5, 2))]
    r = cr.check(defined(CELL, "cell_backward"), *args)
    assert r.ok and len(r.rows) == 3, str(r)
    (finding,) = cr.check(
        defined(CELL.replace("da_next * a_next", "da_next * a_next ** 2"), "cell_backward"), *args
    ).findings
    assert (finding.line, finding.proved) == (12, True), str(finding)


UNFOLLOWED = """
import numpy as np

def double(x):
    return np.apply_along_axis(lambda row: 2 * row, 1, x)

class Layer:
    def forward(self, x):
        return double(x), double(x)

    def backward(self, da, db):
        return 2 * da + 2 * db

def one_forward(x):
    y = double(x)
    return y, (x,)

def one_backward(dy, cache):
    return 2 * dy
"""


def test_differences_are_taken_of_one_output_alone() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(cr.ChainruleError, match="apply_along_axis"):
        cr.check(defined(UNFOLLOWED, "Layer")(), x)
    assert cr.check(defined(UNFOLLOWED, "one_backward"), x).ok


def test_a_step_is_compared_with_a_reference() -> None:
    text = """
    import torch

    def reference(x):
        return (x * x).sum()

    def step(x):
        loss = (x * x).sum()
        return loss, 2 * x
    """
    step, reference = defined(text, "step"), defined(text, "reference")
    assert cr.check(step, torch.ones(3), reference=reference, wrt=["x"]).ok
