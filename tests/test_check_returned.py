"""`check`: what a backward pass returns as it was given, with nothing computed: the `return` is the line."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source
from test_check import program

import chainrule as cr
from chainrule.diagnosis.report import Report

CODE = """\
import numpy as np
import torch


class Relu:
    def forward(self, x):
        self.mask = x <= 0
        out = x.clone()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        return dout


class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(x.shape[0], -1)

    def backward(self, dout):
        return dout


class Add:
    def forward(self, x, y):
        return x + y

    def backward(self, dout):
        return dout, dout


class Sigmoid(torch.nn.Module):
    def forward(self, x):
        self.y = 1 / (1 + torch.exp(-x))
        return self.y

    def backward(self, dy):
        return dy


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.w = Sigmoid(), torch.linspace(-1, 1, 12).reshape(4, 3)

    def forward(self, x):
        self.x = x
        h = x @ self.w
        return self.act(h)

    def backward(self, dy):
        dh = self.act.backward(dy)
        self.dw = self.x.T @ dh
        return dh @ self.w.T


def relu_forward(x):
    return np.maximum(0, x), x


def relu_backward(dout, cache):
    x = cache
    return dout


class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output


class Bias(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, b):
        return x + b

    @staticmethod
    def backward(ctx, g):
        return g, g


class Reshaped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return x.reshape(x.shape[0], -1)

    @staticmethod
    def backward(ctx, g):
        return g


class Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, k):
        ctx.k = k
        return x * k

    @staticmethod
    def backward(ctx, g):
        return g, None


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g, (g * x).sum(0)
"""

CASES = [  # what is checked, the shapes of its arguments, the cause, the repair
    ("Relu()", [(5, 4)], "missing-factor", "return dout.masked_fill(self.mask, 0)"),
    ("Flatten()", [(2, 3, 4)], "wrong-shape", "return dout.reshape(self.shape)"),
    ("Add()", [(5, 4), (4,)], "missing-broadcast-sum", "return dout, dout.sum(0)"),
    ("Sigmoid()", [(5, 4)], "missing-factor", "return dy * self.y * (1 - self.y)"),
    ("Net()", [(5, 4)], "missing-factor", "return dy * self.y * (1 - self.y)"),
    ("relu_backward", [(5, 4)], "missing-factor", "return dout * (x >= 0)"),
    ("Clamp", [(5, 4)], "missing-factor", "return grad_output * (x >= 0)"),
    ("Reshaped", [(2, 3, 4)], "wrong-shape", "return g.reshape(ctx.shape)"),
    ("Times", [(5, 4), 3.0], "wrong-scale", None),
    ("Scale", [(5, 4), (4,)], "missing-factor", "return g * w, (g * x).sum(0)"),
]


@pytest.mark.parametrize(("name", "given", "cause", "repair"), CASES)
def test_what_is_returned_as_it_was_given(name: str, given: list[Any], cause: str, repair: str | None) -> None:
    report, text = checked(name, given)
    (finding,) = report.findings
    assert finding.cause == cause and finding.proved, report
    assert finding.line is not None and text.splitlines()[finding.line - 1].strip().startswith("return"), report
    assert repair is None or finding.repair == repair, report


def test_what_autograd_sums_itself_is_right() -> None:
    report, _ = checked("Bias", [(5, 4), (4,)])
    assert report.ok and "autograd itself sums it" in report.notes[0]
    for function in ("Clamp", "Times"):  # nothing else is
        assert not checked(function, [(5, 4), 3.0][: 1 + (function == "Times")])[0].ok


def checked(name: str, given: list[Any]) -> tuple[Report, str]:
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(shape) if isinstance(shape, tuple) else shape for shape in given]
    if name != "relu_backward":
        arrays = [torch.tensor(a).float() if isinstance(a, np.ndarray) else a for a in arrays]
    text = textwrap.dedent(CODE)
    return cr.check(eval(name, of_source(text, __name__="returned")), *arrays), text


LAYERS = """\
def step(x, y, ws):
    hs = [x]
    for w in ws:
        hs.append(torch.tanh(hs[-1] @ w))
    loss = ((hs[-1] - y) ** 2).sum()
    g, grads = 2 * (hs[-1] - y), []
    for w, after, before in zip(reversed(ws), hs[:0:-1], hs[-2::-1]):
        dz = g * (1 - after**2)
        grads.append(before.T @ dz)
        g = dz @ w.T
    return loss, grads[::-1]
"""


def planted(text: str, name: str) -> Any:
    space = of_source(text, torch=torch)
    return space[name]


@pytest.mark.parametrize("returned", ["grads[::-1]", "grads", "tuple(grads[::-1])"])
@pytest.mark.parametrize("width", [3, 5])
def test_a_list_of_gradients_is_that_of_the_list_of_weights(returned: str, width: int) -> None:
    text = LAYERS.replace("grads[::-1]", returned)
    inputs = torch.randn(4, 3), torch.randn(4, 3), [torch.randn(3, width), torch.randn(width, 3)]
    report = cr.check(planted(text, "step"), *inputs)
    assert report.ok and {row.name for row in report.rows} == {"ws.0", "ws.1"}, str(report)
    report = cr.check(planted(text.replace("before.T @ dz", "-before.T @ dz"), "step"), *inputs)
    assert {(row.name, row.status) for row in report.rows} == {("ws.0", "wrong"), ("ws.1", "wrong")}, str(report)


def test_one_gradient_without_a_name_is_told_by_its_numbers() -> None:
    text = "def grad(x, y, w):\n    return 2 * x.T @ (x @ w - y) / y.numel()\n"
    inputs = torch.randn(4, 3), torch.randn(4, 2), torch.randn(3, 2)

    def loss(x: Any, y: Any, w: Any) -> Any:
        return ((x @ w - y) ** 2).mean()

    report = cr.check(planted(text, "grad"), *inputs, forward=loss)
    assert report.ok and [row.name for row in report.rows] == ["w"], str(report)
    with pytest.raises(cr.ChainruleError, match="wrt="):
        cr.check(planted(text.replace("2 *", "3 *"), "grad"), *inputs, forward=loss)


@pytest.mark.parametrize(("name", "told"), [("acc", True), ("dq", False)])
def test_a_number_beside_gradients_is_passed_over_unless_it_is_called_as_they_are(name: str, told: bool) -> None:
    step = program(f"""
        def step(x, w, t):
            out = x @ w
            loss = ((out - t) ** 2).sum()
            {name} = (out > 0).double().mean() * out.mean()
            dw = 2 * x.T @ (out - t)
            return loss, dw, {name}
    """)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if told:
        report = cr.check(step, x, x[0], x[:, 1])
        assert report.ok and any(f"nothing is said of {name}" in note for note in report.notes), str(report)
    else:
        with pytest.raises(cr.ChainruleError, match="wrt="):
            cr.check(step, x, x[0], x[:, 1])
