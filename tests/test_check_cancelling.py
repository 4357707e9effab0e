"""`check` of two mistakes that cancel in one gradient: each is a finding."""

from __future__ import annotations

import pytest
import torch
from test_check import program, rand

import chainrule as cr

W1, B1, W2 = rand(6, 4), rand(4, seed=1), rand(4, 3, seed=2)
X, Y = rand(8, 6, seed=3), torch.arange(8) % 3
STEP = """
    def step(x, y):
        h = x @ w1 + b1
        a = h.relu()
        logits = a @ w2
        loss = F.cross_entropy(logits, y)
        logits.g = logits.softmax(1)
        logits.g[range(len(y)), y] -= 1
        logits.g /= len(y)
        w2.g = a.T @ logits.g
        a.g = logits.g @ w2.T
        h.g = a.g * (a > 0)
        w1.g = x.T @ h.g
        b1.g = h.g.sum(0)
        return loss
"""
TWO = {
    "a count": [("        logits.g /= len(y)\n", ""), ("h.g.sum(0)", "h.g.mean(0)")],
    "a sign": [("a.g * (a > 0)", "-a.g * (a > 0)"), ("b1.g = h.g", "b1.g = -h.g")],
    "a factor of two": [("logits.g @ w2.T", "2 * logits.g @ w2.T"), ("h.g.sum(0)", "h.g.sum(0) / 2")],
}


@pytest.mark.parametrize("name", TWO)
def test_both_are_found(name: str) -> None:
    text = STEP
    for right, wrong in TWO[name]:
        assert right in text
        text = text.replace(right, wrong)
    report = cr.check(program(text, w1=W1, b1=B1, w2=W2), X, Y)
    first, last = report.findings
    assert last.name == "b1" and first.proved and last.proved, str(report)
    assert "right here only as h.g is wrong" in last.message


COURSERA = """
    def step(X, Y):
        m = X.shape[1]
        Z1 = W1 @ X
        A1 = Z1.tanh()
        Z2 = W2 @ A1
        A2 = Z2.sigmoid()
        loss = F.binary_cross_entropy(A2, Y, reduction="sum") / m
        dZ2 = A2 - Y
        dW2 = 1 / m * dZ2 @ A1.T
        dA1 = W2.T @ dZ2
        dZ1 = dA1 * (1 - A1**2)
        dW1 = 1 / m * dZ1 @ X.T
        return loss, {"dZ2": dZ2, "dW2": dW2, "dA1": dA1, "dZ1": dZ1, "dW1": dW1}
"""
GIVEN = {"W1": rand(3, 6), "W2": rand(1, 3, seed=4)}
DATA = rand(6, 5, seed=6), torch.tensor([[1.0, 0, 1, 1, 0]])


def test_a_number_that_is_made_up_for_is_no_mistake() -> None:
    report = cr.check(program(COURSERA, **GIVEN), *DATA)
    assert report.ok, str(report)
    assert any(
        note == "dZ1 is 5 times the gradient of Z1, for which what is computed from it makes up"
        for note in report.notes
    )


@pytest.mark.parametrize("name", ["W1", "W2"])
def test_one_that_is_not_made_up_for_is_one(name: str) -> None:
    text = COURSERA.replace("dW2 = 1 / m *" if name == "W2" else "dW1 = 1 / m *", f"d{name} =")
    report = cr.check(program(text, **GIVEN), *DATA)
    assert not report.ok and report.findings, str(report)
