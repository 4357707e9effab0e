"""`check`: parameters that are plain numbers in code that does with a number what it does not with an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr
from chainrule.diagnosis.report import Report

X, Y = np.arange(6.0), np.linspace(1, 3, 6)
DEEP = """\
import math

def neuron(x, y, w, b):
    z = w * x + b
    p = 1 / (1 + math.exp(-z))
    loss = -(y * math.log(p) + (1 - y) * math.log(1 - p))
    dz = p - y
    dw = dz * x
    db = dz
    return loss, dw, db
"""
LIKELIHOOD = """\
import numpy as np
from math import log

def step(x, y, w, s):
    p = w * x
    loss = (((p - y) / s) ** 2).mean() / 2 + log(s)
    dw = ((p - y) * x).mean() / s ** 2
    ds = -((p - y) ** 2).mean() / s ** 3 + 1 / s
    return loss, dw, ds
"""
BRANCH = """\
def step(x, y, w, b):
    p = x * w + b
    loss = ((p - y) ** 2).sum()
    d = 2 * (p - y)
    dw = (d * x).sum() if isinstance(w, float) else d * x
    db = d.sum() if isinstance(b, float) else d
    return loss, dw, db
"""
TEXT = """\
import json

def step(x, y, w, b):
    p = w * x + b
    loss = ((p - y) ** 2).mean()
    d = 2 * (p - y) / len(x)
    dw, db = float((d * x).sum()), float(d.sum())
    json.dumps({"w": w, "b": b, "dw": dw})
    return loss, dw, db
"""
ITEMS = """\
def step(x, y, w, b):
    p = w * x + b
    loss = ((p - y) ** 2).mean()
    d = 2 * (p - y) / len(x)
    dw = (d * x).sum().item()
    db = d.sum().item()
    return loss.item(), dw, db
"""
FILLED = """\
def step(x, y, params, grads):
    p = params["w"] * x + params["b"]
    loss = ((p - y) ** 2).mean()
    d = 2 * (p - y) / len(x)
    grads["w"] = (d * x).sum()
    grads["b"] = d.sum()
    return loss, grads
"""
MOMENTUM = """\
def step(x, y, params, m, lr=0.1):
    p = params["w"] * x + params["b"]
    loss = ((p - y) ** 2).mean()
    d = 2 * (p - y) / len(x)
    grads = {"w": (d * x).sum(), "b": d.sum()}
    for k in params:
        m[k] = 0.9 * m[k] + grads[k]
        params[k] = params[k] - lr * m[k]
    return loss, grads
"""
EPOCHS = """\
import numpy as np

def fit(x, y, w, b, lr=0.01):
    for epoch in range(3):
        p = w * x + b
        loss = np.mean((p - y) ** 2)
        dw = np.mean(2 * (p - y) * x)
        db = np.mean(2 * (p - y))
        w = w - lr * dw
        b = b - lr * db
    return w, b
"""
EPOCHS_IN_TEXT = EPOCHS.replace("p = w * x + b", "p = float(str(w)) * x + float(str(b))")
ATTRIBUTES = """\
class Neuron:
    def __init__(self):
        self.w, self.b, self.grads, self.steps = 0.4, 0.2, {}, 0

    def loss(self, x, y):
        import math

        self.steps += 1
        out = math.tanh(self.w * x + self.b)
        error = (out - y) ** 2
        d = 2 * (out - y) * (1 - out * out)
        self.grads["w"] = d * x
        self.grads["b"] = d
        return error
"""
NORM = """\
import math

def step(w, b, xs, ys, n):
    loss = sum((w * x + b - y) ** 2 for x, y in zip(xs, ys)) / n
    dw = sum(2 * (w * x + b - y) * x for x, y in zip(xs, ys)) / n
    db = sum(2 * (w * x + b - y) for x, y in zip(xs, ys)) / n
    gn = math.sqrt(dw * dw + db * db)
    return loss, dw, db, gn
"""
DISTANCE = """\
import math

def spring(x, y, cx, cy, rest=1.0):
    dx, dy = x - cx, y - cy
    r = math.dist((dx, dy), (0.0, 0.0))
    loss = (r - rest) ** 2
    gx = 2 * (r - rest) * dx / r
    gy = 2 * (r - rest) * dy / r
    return loss, gx, gy
"""
COUNT = """\
def step(X, W, bias, y, b):
    out = X @ W + bias
    loss = ((out - y) ** 2).sum() / b
    dout = 2 * (out - y) / b
    dW, dbias = X.T @ dout, dout.sum(0)
    db = dbias
    return loss, dW, db
"""
HINGE = """\
def hinge(w, b, xs, ys):
    loss = dw = db = 0.0
    for x, y in zip(xs, ys):
        m = max(0.0, 1 - y * (w * x + b))
        loss += m
        if m > 0:
            dw -= y * x
            db -= y
    return loss, dw, db
"""


def made(text: str, name: str) -> Any:
    return of_source(text)[name]


def tensors(*values: Any) -> list[Any]:
    return [torch.tensor(v) if isinstance(v, np.ndarray) else v for v in values]


def wb() -> dict[str, float]:
    return {"w": 0.3, "b": 0.2}


PROGRAMS: dict[str, tuple[str, str, list[Any]]] = {
    "math of a number": (DEEP, "neuron", [1.5, 1.0, 0.3, 0.1]),
    "math of a parameter": (LIKELIHOOD, "step", [X, Y, 0.3, 0.8]),
    "a branch on its type": (BRANCH, "step", [X, Y, 0.3, 0.2]),
    "what takes numbers alone": (TEXT, "step", [X, Y, 0.3, 0.2]),
    "items of tensors": (ITEMS, "step", tensors(X, Y, 0.3, 0.2)),
    "a dictionary that is filled": (FILLED, "step", [X, Y, wb(), {"w": 0.0, "b": 0.0}]),
    "momentum of the same keys": (MOMENTUM, "step", [X, Y, wb(), {"w": 0.0, "b": 0.0}]),
    "momentum in arrays": (MOMENTUM, "step", [X, Y, *({k: np.array(v) for k, v in d.items()} for d in [wb()] * 2)]),
    "the norm of the gradient": (NORM, "step", [0.3, 0.1, [0.5, 1.5, -1.0], [0, 3, 0], 3]),
    "differences called dx": (DISTANCE, "spring", [0.5, 0.7, 2.0, 1.0]),
    "a loss of counts": (HINGE, "hinge", [0.3, 0.1, [0.5, 1.5, -1.0, 2.0], [1, -1, 1, 1]]),
    "epochs": (EPOCHS, "fit", [X, Y, 0.7, 0.1]),
}
LOST = [  # a mistake, and the line that is named
    ("math of a number", "dw = dz * x", "dw = 2 * dz * x", 8, "wrong-scale"),
    ("math of a parameter", "+ 1 / s", "", 8, "lost-path"),
    ("a branch on its type", "d.sum() if", "-d.sum() if", 6, "sign"),
    ("what takes numbers alone", "float(d.sum())", "float(2 * d.sum())", 7, "wrong-scale"),
    ("items of tensors", "db = d.sum()", "db = d.mean()", 6, "wrong-scale"),
    ("items of tensors", "(d * x).sum()", "(d * x + w).sum()", 5, "unknown"),
    ("a dictionary that is filled", '["b"] = d.sum()', '["b"] = -d.sum()', 6, "sign"),
    ("a loss of counts", "db -= y", "db -= 7 * y", 8, "wrong-scale"),
    ("a loss of counts", "db -= y", "db += y", 8, "sign"),
    ("differences called dx", "gy = 2 *", "gy = -2 *", 8, "sign"),
    ("momentum of the same keys", '"b": d.sum()', '"b": 3 * d.sum()', 5, "wrong-scale"),
]


def checked(name: str, right: str = "", wrong: str = "") -> Report:
    text, function, args = PROGRAMS[name]
    return cr.check(made(text.replace(right, wrong) if right else text, function), *args)


@pytest.mark.parametrize("name", PROGRAMS)
def test_right_code_is_right(name: str) -> None:
    report = checked(name)
    assert report.ok, str(report)
    assert len(report.rows) == 2


@pytest.mark.parametrize(("name", "right", "wrong", "line", "cause"), LOST)
def test_a_mistake_is_found(name: str, right: str, wrong: str, line: int, cause: str) -> None:
    (found,) = checked(name, right, wrong).findings
    assert (found.line, found.cause) == (line, cause), str(found)


def test_an_object_of_numbers_is_as_it_was() -> None:
    neuron = made(ATTRIBUTES, "Neuron")()
    report = cr.check(neuron.loss, 1.0, 0.5)
    assert report.ok and [row.name for row in report.rows] == ["w.g", "b.g"]
    assert (neuron.w, neuron.b) == (0.4, 0.2)
    (found,) = cr.check(made(ATTRIBUTES.replace('["b"] = d', '["b"] = d / 2'), "Neuron")().loss, 1.0, 0.5).findings
    assert "0.5 times" in found.message and found.line == 13


def test_no_alarm_where_steps_are_taken_between_two_losses() -> None:
    with pytest.raises(cr.ChainruleError, match="say of what they are"):
        cr.check(made(EPOCHS_IN_TEXT, "fit"), X, Y, 0.7, 0.1)


def test_a_count_is_no_parameter() -> None:
    rng = np.random.default_rng(0)
    args = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2), rng.normal(size=(4, 2)), 4
    report = cr.check(made(COUNT, "step"), *args, wrt=["W", "bias"])
    assert report.ok and len(report.rows) == 2, str(report)


RETURNED = """\
import math

def logistic(w, b, xs, ys):
    n, loss, dw, db = len(xs), 0.0, 0.0, 0.0
    for x, y in zip(xs, ys):
        p = 1 / (1 + math.exp(-(w * x + b)))
        loss -= float(y * math.log(p) + (1 - y) * math.log(1 - p))
        dw += float((p - y) * x)
        db += float(p - y)
    RETURN
"""


@pytest.mark.parametrize(
    ("returned", "statuses"),
    [
        ("loss, dw, db = loss / n, dw / n, db / n; return loss, dw, db", ["right", "right"]),
        ("return loss / n, dw, db", ["wrong", "wrong"]),  # the locals called loss and dw agree
        ("dw = dw / n; return loss / n, dw, db", ["right", "wrong"]),
        ("return loss / n, dw / n, db / n", ["right", "right"]),
        ("return loss / n, dw / n, -7 * db", ["right", "wrong"]),
        ("return loss / n, dw / n, (dw + db - dw) / n", None),
    ],
)
def test_what_is_returned_is_compared_with_what_is_returned(returned: str, statuses: list[str] | None) -> None:
    step, args = made(RETURNED.replace("RETURN", returned), "logistic"), (0.3, -0.1, [0.5, 1.5, -1.0], [0, 1, 0])
    if statuses is None:
        with pytest.raises(cr.ChainruleError, match="write `return loss, dw, db`"):
            cr.check(step, *args)
    else:
        assert [row.status for row in cr.check(step, *args).rows] == statuses


def test_what_the_data_hide_is_found_as_with_arrays() -> None:
    text = """\
import numpy as np

def net(w, b, x, y):
    h = np.tanh(w * x)
    o = w * h + b
    loss = (o - y) ** 2
    do = 2 * (o - y)
    dw = do * h + do * (1 - h * h) * x
    db = do
    return loss, dw, db
"""
    (found,) = cr.check(made(text, "net"), 1.0, 0.1, 0.5, 0.2).findings
    assert "hidden by the given data" in found.message and found.line == 8


@pytest.mark.parametrize("w", [1e-12, 1e-3, 1.0, 5000.0])
def test_the_size_of_a_number_hides_no_sign(w: float) -> None:
    text = "def tiny(w, xs):\n    loss = dw = 0.0\n    for x in xs:\n        loss += float((w * x - 1) ** 2)\n"
    text += "        dw -= float(2 * (w * x - 1) * x)\n    return loss, dw\n"
    (found,) = cr.check(made(text, "tiny"), w, [0.5, 1.5, -1.0]).findings
    assert found.cause == "sign"


def test_an_object_with_a_backward_pass_and_numbers_alone() -> None:
    text = """\
import math

class Neuron:
    def __init__(self):
        self.w, self.b = 0.4, -0.2

    def forward(self, x):
        self.x, self.out = x, math.tanh(self.w * x + self.b)
        return self.out

    def backward(self, dout):
        dz = dout * (1 - self.out ** 2)
        self.dw = dz * self.x
        self.db = dz
        return dz * self.w
"""
    neuron = made(text, "Neuron")()
    assert [row.status for row in cr.check(neuron, 0.7).rows] == ["right"] * 3 and vars(neuron) == {"w": 0.4, "b": -0.2}
    report = cr.check(made(text.replace("self.db = dz", "self.db = -dz"), "Neuron")(), 0.7)
    assert [(f.line, f.cause) for f in report.findings] == [(14, "sign")]


def test_data_beside_a_record_of_parameters_are_no_parameters() -> None:
    text = """\
def step(p, x, y):
    e = p[0] * x + p[1] - y
    loss = e ** 2
    return loss, [2 * e * x, 2 * e]
"""
    with pytest.raises(cr.ChainruleError):
        cr.check(made(text, "step"), [0.3, 0.1], 0.5, 1.0)


def test_a_list_of_numbers_is_not_passed_over() -> None:
    text = """\
def step(w, b, x, y):
    e = sum(v * u for v, u in zip(w, x)) + b - y
    loss = float(e ** 2)
    dw, db = [5 * e * u for u in x], float(2 * e)
    return loss, dw, db
"""
    with pytest.raises(cr.ChainruleError, match="plain numbers"):
        cr.check(made(text, "step"), [0.1, 0.2], 0.3, [1.0, 2.0], 1.0)
