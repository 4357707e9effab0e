"""`check`: layers with a backward pass of their own, where what holds them is a module of torch's, and layers that give
several outputs."""

from __future__ import annotations

import linecache
import textwrap
from typing import Any

import pytest
import torch
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


def defined(text: str, name: str, **space: Any) -> Any:
    """What a person's file of this text calls `name`."""
    text, file = textwrap.dedent(text), f"/layers/{abs(hash(text))}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space["__name__"] = file
    exec(compile(text, file, "exec"), space)
    return space[name]


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
