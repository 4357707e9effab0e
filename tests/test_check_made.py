"""`check` on functions that make their own data and parameters, and keep gradients in what they build."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from test_check import program

import chainrule as cr

FUNCTIONS = """\
import numpy as np
import torch


class Linear:
    def __init__(self, n_in, n_out):
        self.W, self.b = np.random.randn(n_in, n_out) * 0.1, np.zeros(n_out)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)  # LINE
        return dout @ self.W.T


class Net:
    def __init__(self):
        self.layers = [Linear(4, 6), Linear(6, 3)]

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)


net = Net()


def tensors():
    x, y = torch.randn(8, 4), torch.randn(8)
    w, b = torch.randn(4, 1), torch.zeros(1)
    out = x @ w + b
    diff = out[:, 0] - y
    loss = diff.pow(2).sum()
    out.g = 2 * diff[:, None]
    w.g = x.T @ out.g
    b.g = out.g.sum(0)  # LINE
    return loss


def builds():
    x = np.random.randn(5, 4)
    own = Net()
    out = own.forward(x)
    loss = np.sum(out ** 2)
    own.backward(2 * out)
    return loss


def reaches():
    x = np.random.randn(5, 4)
    out = net.forward(x)
    loss = np.sum(out ** 2)
    net.backward(2 * out)
    return loss


def trains():
    x = np.random.randn(5, 4)
    own = Net()
    for _ in range(3):
        out = own.forward(x)
        loss = np.sum(out ** 2)
        own.backward(2 * out)
        for layer in own.layers:
            layer.W -= 0.01 * layer.dW
            layer.b -= 0.01 * layer.db
    return loss


def in_variables():
    x, y = torch.randn(8, 5), torch.randn(8, 3)
    w, b = torch.randn(5, 3), torch.zeros(3)
    for _ in range(3):
        out = x.mm(w) + b
        loss = (out - y).pow(2).sum().item()
        grad_out = 2.0 * (out - y)
        grad_w = x.t().mm(grad_out)
        grad_b = grad_out.sum(0)  # LINE
        w -= 1e-3 * grad_w
        b -= 1e-3 * grad_b


def on_the_way():
    x, w1, w2 = torch.randn(8, 4), torch.randn(4, 5) * 0.1, torch.randn(5, 2) / 5**0.5
    h = torch.tanh(x @ w1)
    out = h @ w2
    loss = (out**2).sum()
    dout = 2 * out
    dw2 = h.T @ dout
    dh = (dout @ w2.T) * (1 - h**2)  # of what h is computed from
    dw1 = x.T @ dh
    return loss


def with_a_factor():
    x, t = np.random.randn(4, 9), np.random.randn(1, 9)
    W1, b1 = np.random.randn(5, 4) * 0.1, np.zeros((5, 1))
    W2, b2 = np.random.randn(1, 5) * np.sqrt(1 / 5), np.zeros((1, 1))
    m = x.shape[1]
    A1 = np.tanh(W1 @ x + b1)
    Z2 = W2 @ A1 + b2
    cost = np.sum((Z2 - t) ** 2) / (2 * m)
    dZ2 = Z2 - t  # without 1 / m, which its readers have
    dW2 = dZ2 @ A1.T / m
    db2 = dZ2.sum(axis=1, keepdims=True) / m
    dZ1 = W2.T @ dZ2 * (1 - A1**2)
    dW1 = dZ1 @ x.T / m
    db1 = dZ1.sum(axis=1, keepdims=True) / m
    return cost


def with_noise(x=torch.ones(5, 4)):
    w, b = torch.randn(4, 3), torch.zeros(3)
    mask = (torch.rand(5, 3) > 0.5).float() / 0.5
    pre = (x @ w + b) * mask
    out = pre + 0.1 * torch.randn(5, 3)
    loss = out.pow(2).sum()
    out.g = 2 * out
    w.g = x.T @ (out.g * mask)
    b.g = (out.g * mask).sum(0)  # LINE
    return loss


def in_a_buffer():
    x, w = torch.randn(5, 4), torch.ones(4)
    out = torch.zeros(5)
    for i in range(5):
        out[i] = x[i] @ w
    loss = out.pow(2).sum()
    w.g = (2 * out[:, None] * x).sum(0)  # LINE
    return loss
"""
NAMES = ("tensors", "builds", "reaches", "trains", "in_variables", "with_noise", "in_a_buffer")


def module(folder: Path, text: str) -> ModuleType:
    file = folder / "made_inside.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("made_inside", file)
    assert spec is not None and spec.loader is not None
    made = sys.modules["made_inside"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_right(tmp_path: Path, name: str) -> None:
    report = cr.check(getattr(module(tmp_path, FUNCTIONS), name))
    assert report.ok and len(report.rows) >= 1, str(report)
    assert not report.notes, report.notes


@pytest.mark.parametrize("name", NAMES)
def test_wrong(tmp_path: Path, name: str) -> None:
    """A sum is a mean: on this line, by a factor."""
    text = FUNCTIONS.replace(".sum(0)  # LINE", ".mean(0)  # LINE").replace(
        ".sum(axis=0)  # LINE", ".mean(axis=0)  # LINE"
    )
    report = cr.check(getattr(module(tmp_path, text), name))
    lines = text.splitlines()
    assert not report.ok
    assert {f.cause for f in report.findings} == {"wrong-scale"}
    assert all("# LINE" in lines[f.line - 1] for f in report.findings if f.line), str(report)


@pytest.mark.parametrize(
    ("name", "right", "wrong", "rows"),
    [
        ("on_the_way", "(1 - h**2)", "(1 - h)", {"w1": "wrong", "w2": "right"}),
        ("with_a_factor", "dZ1 @ x.T / m", "dZ1 @ x.T", {"W1": "wrong", "W2": "right"}),
    ],
)
def test_a_gradient_on_the_way_may_be_of_another_value_than_its_name_says(
    tmp_path: Path, name: str, right: str, wrong: str, rows: dict[str, str]
) -> None:
    report = cr.check(getattr(module(tmp_path, FUNCTIONS), name))
    assert report.ok and {r.status for r in report.rows} == {"right"}, str(report)
    report = cr.check(getattr(module(tmp_path, FUNCTIONS.replace(right, wrong)), name))
    assert rows.items() <= {r.name: r.status for r in report.rows}.items(), str(report)
    assert len(report.findings) == 1, str(report)


def test_parameters_are_named_as_the_objects_keep_them(tmp_path: Path) -> None:
    made = module(tmp_path, FUNCTIONS)
    wanted = {f"own.layers.{i}.{name}" for i in (0, 1) for name in ("W", "b")}
    for name in ("builds", "trains"):
        assert {row.name for row in cr.check(getattr(made, name)).rows} == wanted


def test_noise_beside_an_argument_is_expected_to_have_no_gradient() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        w, b, noise = torch.ones(4, 3), torch.zeros(3), torch.randn(3)
        out = x @ w + b + noise
        loss = out.pow(2).sum()
        w.g = x.T @ (2 * out)  # type: ignore[attr-defined]
        b.g = (2 * out).sum(0)  # type: ignore[attr-defined]
        return loss

    assert [row.name for row in cr.check(step, torch.ones(2, 4)).rows] == ["w", "b"]


@pytest.mark.parametrize("begin", ["w[:] = 0.5", "w.fill_(0.5)", "w.zero_()", "w += 0.5", "w.mul_(0.5)"])
def test_a_parameter_is_what_it_was_set_to_in_place(begin: str) -> None:
    text = f"""
        def step(x):
            w = torch.ones(3, 1, dtype=x.dtype)
            {begin}
            out = x @ w
            loss = (out ** 2).sum()
            out.g = 2 * out
            w.g = x.T @ out.g
            return loss
    """
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert cr.check(program(text), x).ok
    wrong = text.replace("w.g = x.T", "w.g = -x.T")
    assert begin == "w.zero_()" or [f.cause for f in cr.check(program(wrong), x).findings] == ["sign"]


def test_a_parameter_that_is_changed_in_place_first_has_one_gradient() -> None:
    step = program("""
        def step(x, w):
            with torch.no_grad():
                w.div_(w.norm())
            loss = ((x @ w) ** 2).sum()
            w.g = 2 * x.T @ (x @ w)
            return loss
    """)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    report = cr.check(step, x, x[0].clone().requires_grad_())
    assert report.ok and len(report.rows) == 1, str(report)
