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


def test_a_gradient_under_another_convention_spoils_nothing() -> None:
    text = """
        def step(x, y):
            s = x @ w
            p = s / 2
            loss = (p * v).sum()
            s.g = v
            w.g = x.T @ s.g / 2
            return loss
    """
    report = cr.check(program(text, w=rand(6, 3), v=rand(8, 3, seed=5)), X, Y)
    assert [f.name for f in report.findings] == ["s"], str(report)
