"""`check` on objects that keep more beside their parameters and gradients, and on numbers beside masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_check import program, rand
from test_forms import module
from torch import Tensor

import chainrule as cr
from chainrule.diagnosis.report import Report

DICTS = """\
import numpy as np


class Affine:
    def __init__(self, W, b):
        self.params, self.grads = {"W": W, "b": b}, {}
        self.v = {k: np.zeros_like(p) for k, p in self.params.items()}
        self.lrs = {"W": 0.1, "b": 0.2}

    def forward(self, x):
        self.x, self.old = x, {"W": self.params["W"].copy()}
        return x @ self.params["W"] + self.params["b"]

    def backward(self, dout):
        self.grads["W"] = self.x.T @ dout
        self.grads["b"] = dout.sum(0)
        self.v["W"] = 0.9 * self.v["W"] + 0.1 * self.grads["W"]
        return dout @ self.params["W"].T
"""
ATTRIBUTES = """\
import numpy as np


class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b
        self.v, self.norms = {"W": np.zeros_like(W)}, {}

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(0)
        self.v["W"] = 0.9 * self.v["W"] + 0.1 * self.dW
        self.norms["W"] = np.sqrt((self.dW ** 2).sum())
        return dout @ self.W.T
"""
LISTS = """\
import numpy as np


class Affine:
    def __init__(self, W, b):
        self.params, self.v = [W, b], [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        W, b = self.params
        self.x, self.old = x, [W, b]
        return x @ W + b

    def backward(self, dout):
        W, b = self.params
        self.grads = [self.x.T @ dout, dout.sum(0)]
        self.v = [0.9 * v + g for v, g in zip(self.v, self.grads)]
        return dout @ W.T
"""


def layer(tmp_path: Path, text: str) -> Report:
    r = np.random.default_rng(0)
    made = module(tmp_path, text).Affine(r.standard_normal((4, 3)), r.standard_normal(3))
    return cr.check(made, r.standard_normal((5, 4)))


@pytest.mark.parametrize("text", [DICTS, ATTRIBUTES, LISTS], ids=["dicts", "attributes", "lists"])
def test_what_is_kept_beside_the_gradients_is_none(tmp_path: Path, text: str) -> None:
    report = layer(tmp_path, text)
    assert report.ok and len(report.rows) == 3, report
    (tmp_path / "wrong").mkdir()
    wrong = layer(tmp_path / "wrong", text.replace("self.x.T @ dout", "2 * self.x.T @ dout"))
    [finding] = wrong.findings
    assert (finding.cause, finding.proved) == ("wrong-scale", True), wrong


def test_gradients_in_another_order_are_told(tmp_path: Path) -> None:
    text = LISTS.replace("def __init__(self, W, b)", "def __init__(self, W, b, U=None)")
    text = text.replace("[self.x.T @ dout, dout.sum(0)]", "[dout.sum(0), self.x.T @ dout]")
    assert layer(tmp_path, text).ok  # their shapes tell
    r = np.random.default_rng(0)
    made = module(tmp_path, SWAPPED).Net(r.standard_normal((4, 4)), r.standard_normal((4, 4)))
    report = cr.check(made, r.standard_normal((5, 4)))
    assert any("stand in another order" in note for note in report.notes), report


SWAPPED = """\
import numpy as np


class Net:
    def __init__(self, W1, W2):
        self.params, self.grads = [W1, W2], [0 * W1, 0 * W2]

    def forward(self, x):
        W1, W2 = self.params
        self.x, self.h = x, np.tanh(x @ W1)
        return self.h @ W2

    def backward(self, dout):
        W1, W2 = self.params
        self.grads[0][...] = self.h.T @ dout
        dh = (dout @ W2.T) * (1 - self.h ** 2)
        self.grads[1][...] = self.x.T @ dh
        return dh @ W1.T
"""


@pytest.mark.parametrize("default", ["grad_scale=1.0", "dW=None", "grad_clip=5.0", "state=None"])
def test_an_optional_parameter_keeps_its_default_where_others_take_the_gradient(default: str) -> None:
    name = default.partition("=")[0]
    text = f"""\
        def relu_forward(x):
            return np.maximum(x, 0), x
        def relu_backward(dout, cache, {default}):
            if {name} is None:
                {name} = 1.0
            return dout * (cache > 0) * ({name} / {name})
        def step():
            pass
        """
    backward = program(text, np=np).__globals__["relu_backward"]
    assert cr.check(backward, np.random.default_rng(0).standard_normal((4, 4))).ok


BESIDE_MASKS = [
    ("h.relu().mean()", "(h > 0) / h.numel()"),
    ("F.leaky_relu(h, 0.1).sum()", "(h > 0) * 0.9 + 0.1"),
    ("(h * (mask / 0.7)).sum()", "mask * (1 / 0.7)"),
    ("(h * torch.where(t == 0, 0.1, 0.3)[:, None]).sum()", "torch.tensor([0.1, 0.3])[t][:, None].expand_as(h)"),
    ("(1 + h).clamp_min(0).sum() / 3", "(1 + h > 0).int() / 3"),
    ("(h * (F.one_hot(t, 4) * 0.9 + 0.1 / 4)).sum()", "F.one_hot(t, 4) * (1 - 0.1) + 0.1 / 4"),
]


@pytest.mark.parametrize(("loss", "dh"), BESIDE_MASKS, ids=[loss for loss, _ in BESIDE_MASKS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_beside_masks_and_whole_numbers(loss: str, dh: str, dtype: torch.dtype) -> None:
    step = program(
        f"""\
        def step(x, w, mask, t):
            h = x @ w
            loss = {loss}
            dh = {dh}
            w.g = x.T @ dh.to(x.dtype)
            return loss
        """
    )
    given: list[Tensor] = [
        rand(5, 3, dtype=dtype),
        rand(3, 4, dtype=dtype),
        rand(5, 4) > 0,
        torch.tensor([0, 1, 0, 1, 1]),
    ]
    report: Any = cr.check(step, *given)
    assert report.ok, report
