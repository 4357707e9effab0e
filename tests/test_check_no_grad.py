"""`check` of code with `torch.no_grad`: a constant of the loss, or how hand-written code is run as a whole."""

from __future__ import annotations

import pytest
from test_check import program, rand

import chainrule as cr

X, W = rand(4, 3), rand(3, seed=1)
NORMED = """
    def step(x, w):
        out = x @ w
        with torch.no_grad():
            scale = out.norm()
        loss = (out / scale).sum()
        out.g = torch.ones_like(out) / scale
        w.g = x.T @ out.g
        return loss
"""
TEACHER = """
    def step(x, w):
        z = x @ w[:, None] * torch.arange(1, 4)
        with torch.no_grad():
            teacher = (2 * z).softmax(1)
        loss = -(teacher * z.log_softmax(1)).sum(1).mean()
        z.g = (z.softmax(1) - teacher) / len(z)
        w.g = x.T @ (z.g * torch.arange(1, 4)).sum(1)
        return loss
"""
ALL_OF_IT = """
    def step(x, w):
        with torch.no_grad():
            out = x @ w
            loss = out.pow(2).sum()
            out.g = 2 * out
            w.g = x.T @ out.g
        return loss
"""
THE_FIRST_PART = """
    def step(x, w):
        with torch.no_grad():
            out = x @ w
        loss = out.pow(2).sum()
        out.g = 2 * out
        w.g = x.T @ out.g
        return loss
"""
BEGINNING = """
    def step(x, w):
        with torch.no_grad():
            v = torch.ones(3, dtype=x.dtype)
            v.mul_(0.5)
        loss = (x @ w * (x @ v)).sum()
        w.g = x.T @ (x @ v)
        v.g = x.T @ (x @ w)
        return loss
"""
RIGHT = {"normed": NORMED, "teacher": TEACHER, "all": ALL_OF_IT, "first part": THE_FIRST_PART, "beginning": BEGINNING}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", RIGHT)
def test_right_by_either_reading_is_right(name: str, requires_grad: bool) -> None:
    report = cr.check(program(RIGHT[name]), X, W.clone().requires_grad_(requires_grad))
    assert report.ok, str(report)


@pytest.mark.parametrize("name", RIGHT)
def test_a_mistake_is_found(name: str) -> None:
    wrong = RIGHT[name].replace("w.g = x.T @ ", "w.g = 2 * x.T @ ")
    (found,) = cr.check(program(wrong), X, W).findings
    assert found.cause == "wrong-scale" and found.proved and "w.g = x.T @ " in found.repair, str(found)


def test_the_constant_is_no_path() -> None:
    wrong = NORMED.replace("/ scale\n        w", "/ scale - out * (out / scale).sum() / scale**2\n        w")
    report = cr.check(program(wrong), X, W)
    assert report.ok, "the slope of the loss as a function, no_grad or not"
