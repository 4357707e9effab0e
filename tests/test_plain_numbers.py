"""`check`: parameters that are plain numbers in code that does with a number what it does not with an array."""

from __future__ import annotations

import linecache
from typing import Any

import numpy as np
import pytest
import torch

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


def made(text: str, name: str) -> Any:
    space: dict[str, Any] = {}
    file = f"<numbers {hash(text)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    exec(compile(text, file, "exec"), space)
    return space[name]


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
