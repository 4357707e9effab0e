"""`check` given one half of a pair, a class, a torch.autograd.Function: what goes with it is found; else it is said."""

from __future__ import annotations

import importlib.util
import sys
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.diagnosis.reading.forms import pairs_of_names
from chainrule.errors import ChainruleError

FILE = """\
import numpy as np
import torch
from math import erf


def affine_forward(x, w, b):
    return x.dot(w) + b, (x, w, b)


def affine_backward(dout, cache):
    x, w, b = cache
    dx = dout.dot(w.T)
    dw = x.T.dot(dout)
    db = dout.sum(axis=0)
    return dx, dw, db


def softmax(x):
    e = torch.exp(x)
    return e / e.sum(-1, keepdim=True)


def softmax_grad(grad_output, p):
    return p * (grad_output - (p * grad_output).sum(-1, keepdim=True))


def lin(inp, w, b):
    return inp @ w + b


def lin_grad(inp, out, w, b):
    inp.g = out.g @ w.t()
    w.g = inp.t() @ out.g
    b.g = out.g.sum(0)


def mse(output, targ):
    return (output.squeeze(-1) - targ).pow(2).mean()


def mse_grad(inp, targ):
    inp.g = 2.0 * (inp.squeeze(-1) - targ).unsqueeze(-1) / targ.shape[0]


def forward_propagation(X, parameters):
    A1 = np.tanh(parameters["W1"] @ X + parameters["b1"])
    A2 = 1 / (1 + np.exp(-(parameters["W2"] @ A1)))
    return A2, {"A1": A1, "A2": A2}


def compute_cost(A2, Y):
    return float(-np.sum(Y * np.log(A2) + (1 - Y) * np.log(1 - A2)) / Y.shape[1])


def backward_propagation(parameters, cache, X, Y):
    m = X.shape[1]
    dZ2 = cache["A2"] - Y
    dW2 = dZ2 @ cache["A1"].T / m
    dZ1 = parameters["W2"].T @ dZ2 * (1 - cache["A1"] ** 2)
    dW1 = dZ1 @ X.T / m
    db1 = np.sum(dZ1, axis=1, keepdims=True) / m
    return {"dW1": dW1, "db1": db1, "dW2": dW2}


class Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        out = 1 / (1 + torch.exp(-x))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, g):
        (out,) = ctx.saved_tensors
        return g * out * (1 - out)


class Tanh:
    def forward(self, X):
        return np.tanh(X)

    def backward(self, X, top_diff):
        return (1.0 - np.tanh(X) ** 2) * top_diff


class Gate:
    def forward(self, W, X):
        return X @ W

    def backward(self, W, X, dZ):
        dW = X.T @ dZ
        dX = dZ @ W.T
        return dW, dX


class Product:
    def forward(self, x, w):
        self.kept = x, w
        return x @ w

    def backward(self, dout):
        x, w = self.kept
        self.dw = x.T @ dout
        return dout @ w.T


class Dense:
    def __init__(self, rate=0.1):
        self.rate, self.weights, self.biases = rate, np.ones((4, 3)), np.zeros(3)

    def forward(self, input):
        return input @ self.weights + self.biases

    def backward(self, input, grad_output):
        grad_weights = input.T @ grad_output
        grad_biases = grad_output.sum(axis=0)
        grad_input = grad_output @ self.weights.T
        self.weights = self.weights - self.rate * grad_weights
        self.biases = self.biases - self.rate * grad_biases
        return grad_input


def losses(logits, y):
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(y)), y]


def grad_losses(logits, y):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return p / len(y)


class SoftmaxLoss:
    def forward(self, x, y):
        p = np.exp(x)
        self.p, self.y = p / p.sum(axis=1, keepdims=True), y
        return -np.log(self.p[np.arange(len(y)), y]).mean()

    def backward(self):
        d = self.p.copy()
        d[np.arange(len(self.y)), self.y] -= 1
        return d / len(self.y)


def smooth_forward(x, w):
    z = np.convolve(x, w)
    return z**2, (x, w, z)


def smooth_backward(dout, cache):
    x, w, z = cache
    dz = 2 * z * dout
    dx = np.correlate(dz, w, mode="valid")
    dw = np.correlate(dz, x, mode="valid")
    return dx, dw


class Gelu:
    def forward(self, x):
        self.x = x
        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))

    def backward(self, dout):
        x = self.x
        slope = 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2))) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
        return dout * slope
"""


def n(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def t(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


AFFINE = (n(5, 4), n(4, 3, seed=1), n(3, seed=2))
COURSE = (n(3, 7), {"W1": n(4, 3, seed=1), "b1": n(4, 1), "W2": n(1, 4, seed=2)}, (n(1, 7, seed=3) > 0) * 1.0)
CASES: dict[str, tuple[tuple[Any, ...], str, str]] = {  # name: inputs, a change that is a mistake
    "affine_backward": (AFFINE, "db = dout.sum(axis=0)", "db = dout.mean(axis=0)"),
    "affine_forward": (AFFINE, "dw = x.T.dot(dout)", "dw = -x.T.dot(dout)"),
    "softmax_grad": ((t(3, 4),), "(p * grad_output)", "(2 * p * grad_output)"),
    "softmax": ((t(3, 4),), "(p * grad_output)", "(2 * p * grad_output)"),
    "lin_grad": ((t(5, 4), t(4, 3), t(3)), "b.g = out.g.sum(0)", "b.g = out.g.mean(0)"),
    "mse_grad": ((t(5, 1), t(5, seed=1)), " / targ.shape[0]", ""),
    "backward_propagation": (COURSE, '(1 - cache["A1"] ** 2)', '(1 - cache["A1"])'),
    "Sigmoid": ((t(3, 4),), "out * (1 - out)", "out * (1 + out)"),
    "Tanh": ((n(3, 4),), "np.tanh(X) ** 2", "np.tanh(X)"),
    "Gate": ((n(4, 3), n(5, 4)), "dW = X.T @ dZ", "dW = -X.T @ dZ"),
    "Product": ((n(5, 4), n(4, 3)), "self.dw = x.T @ dout", "self.dw = 2 * x.T @ dout"),
    "Dense": ((n(5, 4),), "grad_biases = grad_output.sum(axis=0)", "grad_biases = grad_output.mean(axis=0)"),
    "SoftmaxLoss": ((n(5, 3), np.array([0, 2, 1, 1, 0])), "d[np.arange(len(self.y)), self.y] -= 1", "d[np.arange(len(self.y)), self.y] -= 2"),
    "smooth_backward": ((n(7), n(3)), 'dw = np', 'dw = 2 * np'),
    "Gelu": ((n(6),), "return dout * slope", "return -dout * slope"),
}  # fmt: skip


def module(folder: Path, text: str = FILE) -> ModuleType:
    file = folder / "forms_of_code.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("forms_of_code", file)
    assert spec is not None and spec.loader is not None
    made = sys.modules["forms_of_code"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("name", CASES)
def test_right(tmp_path: Path, name: str) -> None:
    report = cr.check(getattr(module(tmp_path), name), *CASES[name][0])
    assert report.ok and report.rows, str(report)


@pytest.mark.parametrize("name", CASES)
def test_wrong(tmp_path: Path, name: str) -> None:
    args, before, after = CASES[name]
    assert FILE.count(before) == 1
    line = FILE[: FILE.index(before)].count("\n") + 1
    report = cr.check(getattr(module(tmp_path, FILE.replace(before, after)), name), *args)
    assert [f.line for f in report.findings] == [line], str(report)
    assert cr.testing.grade(getattr(sys.modules["forms_of_code"], name), *args) < 1


def test_a_gradient_by_numeric_differences_says_so(tmp_path: Path) -> None:
    for name in ("smooth_backward", "Gelu"):
        report = cr.check(getattr(module(tmp_path), name), *CASES[name][0])
        assert any("numeric differences in float64" in note for note in report.notes)
        assert all(row.max_rel is not None and row.max_rel < 1e-6 for row in report.rows)


def test_numeric_differences_tell_the_shape_the_sign_and_the_scale(tmp_path: Path) -> None:
    for change, cause in (("-np.cor", "sign"), ("3 * np.cor", "wrong-scale"), ("1 + np.cor", "unknown")):
        text = FILE.replace("dx = np.cor", f"dx = {change}")
        (finding,) = cr.check(module(tmp_path, text).smooth_backward, n(7), n(3)).findings
        assert (finding.name, finding.cause) == ("x", cause)
    text = FILE.replace('dx = np.correlate(dz, w, mode="valid")', 'dx = np.correlate(dz, w, mode="full")')
    (finding,) = cr.check(module(tmp_path, text).smooth_backward, n(7), n(3)).findings
    assert (finding.name, finding.cause) == ("x", "wrong-shape")


NAMES = """\
import numpy as np
import torch


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sigmoid_backward(dA, Z):
    return dA * sigmoid(Z) * (1 - sigmoid(Z))


def softplus(z):
    return np.log1p(np.exp(z))


def softplus_backward(x, dout):
    return dout * sigmoid(x)


def gelu_forward(inp):
    return torch.nn.functional.gelu(inp)


def gelu_backward(grad_output, input):
    c = 0.5 * (1 + torch.erf(input / 2**0.5))
    return grad_output * (c + input * torch.exp(-(input**2) / 2) / (2 * torch.pi) ** 0.5)


def cube(x):
    return x**3


def cube_backward(g, v):
    return 3 * g * v**2


def gate(x):
    return 1 / (1 + np.exp(-x))


def gate_backward(g, v):
    return g * v * (1 - v)


def switch(x):
    z = 1 / (1 + np.exp(-x))
    return z


def switch_backward(g, z):
    return g * z * (1.0 - z)


def product(x, w):
    return x @ w


def product_backward(g, x, m):
    return g @ m.T, x.T @ g
"""


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("sigmoid", "(1 - sigmoid(Z))", "(1 + sigmoid(Z))"),
        ("softplus", "dout * sigmoid(x)", "-dout * sigmoid(x)"),
        ("gelu", "c + input *", "c - input *"),
        ("cube", "3 * g", "2 * g"),
        ("gate", "(1 - v)", "(1 + v)"),
        ("switch", "(1.0 - z)", "(1.0 + z)"),
        ("product", "g @ m.T,", "2 * g @ m.T,"),
    ],
)
def test_what_a_backward_function_calls_an_input_or_the_output(
    tmp_path: Path, name: str, right: str, wrong: str
) -> None:
    given = (t(3, 4),) if name == "gelu" else (n(3, 4), n(4, 2)) if name == "product" else (n(3, 4),)
    report = cr.check(getattr(module(tmp_path, NAMES), f"{name}_backward"), *given)
    assert report.ok and report.rows, str(report)
    text = NAMES.replace(right, wrong)
    report = cr.check(getattr(module(tmp_path, text), f"{name}_backward"), *given)
    assert [text.splitlines()[f.line - 1].strip() for f in report.findings if f.line] == [
        next(line.strip() for line in text.splitlines() if wrong in line)
    ], str(report)


def test_a_mistake_about_the_output_is_none_about_the_input(tmp_path: Path) -> None:
    """The name in the forward pass tells that it is the output."""
    text = NAMES.replace("return g * z * (1.0 - z)", "return g * sigmoid(z) * (1 - sigmoid(z))")
    assert not cr.check(module(tmp_path, text).switch_backward, n(3, 4)).ok


TARGETS = """\
import numpy as np


def forward(X, W, b):
    e = np.exp(X @ W + b)
    return e / e.sum(1, keepdims=True)


def compute_loss(A, Y):
    return -np.sum(Y * np.log(A)) / len(Y)


def backward(X, Y, A):
    dZ = (A - Y) / len(Y)
    dW = X.T @ dZ
    db = dZ.sum(axis=0)
    return dW, db
"""


def test_a_backward_function_that_takes_the_targets_and_the_output(tmp_path: Path) -> None:
    given = n(5, 4), n(4, 3), n(3), np.eye(3)[[0, 2, 1, 0, 1]]
    for name in ("backward", "forward"):
        report = cr.check(getattr(module(tmp_path, TARGETS), name), *given)
        assert report.ok and [r.name for r in report.rows] == ["W", "b"], str(report)
    (finding,) = cr.check(module(tmp_path, TARGETS.replace("dZ.sum", "dZ.mean")).backward, *given).findings
    assert (finding.line, finding.cause) == (16, "wrong-scale")
    no_loss = module(tmp_path, TARGETS.replace("compute_loss", "measured"))
    for args in (given, given[:3]):
        with pytest.raises(ChainruleError, match=r"takes Y, which forward does not, .* give the whole loss"):
            cr.check(no_loss.backward, *args)


def test_a_global_that_cannot_be_asked_what_it_is(tmp_path: Path) -> None:
    made = module(tmp_path)

    class Owner:
        pass

    made.dead = weakref.proxy(Owner())  # type: ignore[attr-defined]
    assert cr.check(made.affine_backward, *AFFINE).ok and cr.check(made.softmax, t(3, 4)).ok


DIFFERENCES = """\
import threading
import time

import numpy as np

calls = 0


def large_forward(x, y):
    return np.convolve(x, [1.0, 2.0, 1.0], "same") * 1e8 + y, None


def large_backward(dout, cache):
    return np.convolve(dout, [1.0, 2.0, 1.0], "same") * 1e8, dout


def half_forward(x):
    out = np.zeros(x.shape, dtype=np.float32)
    out[:] = np.convolve(x, [1.0, 2.0, 1.0], "same")
    return out, x


def half_backward(dout, x):
    return np.convolve(dout, [1.0, 2.0, 1.0], "same")


def inside_forward(x):
    return np.convolve(x, [1.0, 2.0, 1.0], "same").astype(np.float32) * np.ones(x.shape), x


def inside_backward(dout, x):
    return np.convolve(dout, [1.0, 2.0, 1.0], "same")


def kinks_forward(x):
    return np.interp(x, [0.0, 1.0], [0.0, 1.0]), x


def kinks_backward(dout, x):
    return dout * ((x >= 0) & (x < 1))


def slow_forward(x, w):
    global calls
    calls += 1
    time.sleep(0.01)
    return np.convolve(x, x)[: len(x)] @ w, (x, w)


def slow_backward(dout, cache):
    x, w = cache
    dy = w @ dout
    dx = 2 * np.array([dy[k:] @ x[: len(x) - k] for k in range(len(x))])
    return dx, np.outer(np.convolve(x, x)[: len(x)], dout)


def writes_forward(x):
    x[:] = np.convolve(x, [1.0, 2.0, 1.0], "same")
    return x * 1.0, None


def writes_backward(dout, cache):
    return np.convolve(dout, [1.0, 2.0, 1.0], "same")


class Held:
    def __init__(self):
        self.W, self.kept = np.ones((5, 3)), threading.Lock()  # which cannot be copied

    def forward(self, x):
        self.x = x
        self.c = np.convolve(x[0], x[0])
        return x @ self.W

    def backward(self, d):
        self.dW = self.x.T @ d
        return d @ self.W.T
"""


@pytest.mark.parametrize(
    ("name", "given", "wrong"),
    [
        ("large_backward", (n(30), n(30)), ('"same") * 1e8, dout', '"same") * 2e8, dout')),
        ("half_backward", (n(9),), ("return np.convolve(dout", "return 2 * np.convolve(dout")),
        ("kinks_backward", (np.array([0.0, 0.5, 1.0, 2.0, -1.0, 0.2]),), ("return dout *", "return 2 * dout *")),
        ("writes_backward", (n(9),), ("return np.convolve(dout", "return 2 * np.convolve(dout")),
        ("Held", (n(4, 5),), ("self.dW = self.x", "self.dW = 2 * self.x")),
    ],
)
def test_differences_alarm_only_for_what_they_can_tell(
    tmp_path: Path, name: str, given: tuple[Any, ...], wrong: tuple[str, str]
) -> None:
    report = cr.check(getattr(module(tmp_path, DIFFERENCES), name), *given)
    assert report.ok and report.rows, str(report)
    assert not cr.check(getattr(module(tmp_path, DIFFERENCES.replace(*wrong)), name), *given).ok


def test_differences_say_where_they_tell_nothing(tmp_path: Path) -> None:
    made = module(tmp_path, DIFFERENCES)
    report = cr.check(made.large_backward, n(30), n(30))
    assert [r.name for r in report.rows] == ["x"]
    assert any("nothing is said of d" in note and "rounding hides the slope" in note for note in report.notes)
    try:
        assert cr.check(made.inside_backward, n(9)).ok
    except ChainruleError as error:  # no gradient of which anything could be said
        assert "cannot be followed" in str(error)


def test_differences_take_little_time(tmp_path: Path) -> None:
    made = module(tmp_path, DIFFERENCES)
    report = cr.check(made.slow_backward, n(40), n(40, 3))
    assert report.ok and made.calls < 400, str(report)
    assert sum("of its 40 entries" in note or "of its 120 entries" in note for note in report.notes) == 2


def test_a_gradient_of_no_known_loss_is_refused(tmp_path: Path) -> None:
    """Of the mean of the losses, or of their sum? It may be either, so that neither is a mistake."""
    with pytest.raises(ChainruleError, match=r"takes no upstream gradient, .* shape \(4,\), not a scalar"):
        cr.check(module(tmp_path).grad_losses, n(4, 3), np.array([0, 1, 2, 0]))


def test_a_step_that_is_whole_is_not_paired(tmp_path: Path) -> None:
    """`backward(x, w)` that computes its own loss is checked as it is, whatever stands beside it."""
    text = """\
def forward(x, w):
    return x @ w


def backward(x, w):
    loss = forward(x, w).sum()
    w.g = x.sum(0)[:, None].expand(w.shape)
    return loss
"""
    report = cr.check(module(tmp_path, text).backward, t(5, 4), t(4, 3))
    assert report.ok and [row.name for row in report.rows] == ["w"]


def test_an_upstream_gradient_may_be_given_with_the_inputs(tmp_path: Path) -> None:
    made = module(tmp_path)
    named = dict(zip(("x", "w", "b"), AFFINE, strict=True), dout=np.ones((AFFINE[0].shape[0], AFFINE[1].shape[1])))
    assert cr.check(made.affine_backward, **named).ok
    assert cr.check(made.affine_backward, **named, forward=made.affine_forward).ok
    with pytest.raises(ChainruleError, match="z"):
        cr.check(made.affine_backward, **named, z=1)


def test_given_forward_goes_before_the_name(tmp_path: Path) -> None:
    made = module(tmp_path)

    def scaled(x: Any, w: Any, b: Any) -> Any:
        return 3 * x.dot(w) + b, (x, w, b)

    report = cr.check(made.affine_backward, *AFFINE, forward=scaled)
    assert [f.name for f in report.findings] == ["x", "w"]


def test_audit_takes_either_half(tmp_path: Path) -> None:
    made = module(tmp_path)

    def test() -> None:
        _, cache = made.affine_forward(*AFFINE)
        up = n(5, 3, seed=5)
        _, dw, db = made.affine_backward(up, cache)
        assert np.allclose(dw, AFFINE[0].T @ up) and np.allclose(db, up.sum(0)) and db.shape == (3,)

    for code in (made.affine_backward, made.affine_forward):
        found = cr.audit(test, code)
        assert found.caught and {m.gradient for m in found.survived} <= {"dx"}


@pytest.mark.parametrize(
    "names, pairs",
    [
        ("affine_forward affine_backward relu_forward", {"affine_backward": "affine_forward"}),
        ("forward backward", {"backward": "forward"}),
        ("forward_prop back_prop", {"back_prop": "forward_prop"}),
        ("convForward convBackward", {"convBackward": "convForward"}),
        ("layer1_fwd layer2_fwd layer2_bwd", {"layer2_bwd": "layer2_fwd"}),
        ("lin lin_forward lin_grad", {"lin_grad": "lin_forward"}),
        ("numeric_gradient check_gradients backward", {}),
    ],
)
def test_names_of_pairs(names: str, pairs: dict[str, str]) -> None:
    assert pairs_of_names(names.split()) == pairs


def test_a_class_that_needs_arguments_is_refused(tmp_path: Path) -> None:
    text = "class Layer:\n    def __init__(self, n): pass\n    def backward(self): pass\n"
    with pytest.raises(ChainruleError, match=r"the class Layer; give it an object"):
        cr.check(module(tmp_path, text).Layer, t(3))
