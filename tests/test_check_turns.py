"""`check`: mistakes in loops, in what is saved for the backward pass, in bare assignments and writes through an index."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import torch
from of_source import of_source

import chainrule as cr
from chainrule.diagnosis.report import Report


def checked(text: str, *args: Any, name: str = "step") -> Report:
    """What `check` says of `name` in `text`, which is read as a file is."""
    text = textwrap.dedent(text)
    space = of_source(text, torch=torch)
    return cr.check(space[name], *args)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)))


LOOP = """\
def step(xs, w, u):
    hs = [torch.zeros(3, 4)]
    for t in range(3):
        hs.append(torch.tanh(xs[t] @ w + hs[t] @ u))
    loss = hs[3].pow(2).sum()
    dw, du = torch.zeros_like(w), torch.zeros_like(u)
    dnext = 2 * hs[3]
    for t in range(3, 0, -1):
        dz = dnext * (1 - hs[t] ** 2)
        dw += xs[t - 1].T @ dz
        du += hs[t - 1].T @ dz
        dnext = dz @ u.T
    return loss, dw, du
"""
TURNS = [
    ("dz = dnext * (1 - hs[t] ** 2)", "dz = dnext * (1 - hs[t - 1] ** 2)"),
    ("dz = dnext * (1 - hs[t] ** 2)", "dz = dnext * (1 - hs[t])"),
    ("dw += xs[t - 1].T @ dz", "dw = xs[t - 1].T @ dz"),
    ("dw += xs[t - 1].T @ dz", "dw += xs[t - 1].T @ dnext"),
    ("du += hs[t - 1].T @ dz", "du += hs[t].T @ dz"),
    ("du += hs[t - 1].T @ dz", "du -= hs[t - 1].T @ dz"),
    ("dnext = dz @ u.T", "dnext = dnext @ u.T"),
    ("dnext = dz @ u.T", "dnext = dz @ u"),
    ("dnext = dz @ u.T", "dnext = 2 * dz @ u.T"),
]


def test_the_loop_is_right() -> None:
    assert checked(LOOP, rand(3, 3, 5), rand(5, 4), rand(4, 4)).ok


@pytest.mark.parametrize(("right", "wrong"), TURNS, ids=[wrong for _, wrong in TURNS])
def test_a_mistake_in_a_loop_is_one_finding_repaired_in_every_turn(right: str, wrong: str) -> None:
    text = LOOP.replace(right, wrong)
    report = checked(text, rand(3, 3, 5), rand(5, 4), rand(4, 4))
    (finding,) = report.findings
    assert finding.line == text.splitlines().index(f"        {wrong}") + 1, str(finding)
    assert finding.proved and finding.cause != "unknown", str(finding)
    assert "[3]" not in finding.repair and "[0]" not in finding.repair, finding.repair  # in this turn's names


SAVED = """\
class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, s):
        e = torch.exp(x)
        ctx.save_for_backward({saved})
        return e * s

    @staticmethod
    def backward(ctx, g):
        e, s = ctx.saved_tensors
        return g * e * s, (g * e).sum(0)


def step(x, s):
    return Scaled.apply(x, s)
"""


@pytest.mark.parametrize("saved", ["x, s", "e * 2, s", "e, -s"])
def test_a_mistake_in_what_is_saved_is_found_there(saved: str) -> None:
    args = rand(5, 4), rand(4)
    assert checked(SAVED.format(saved="e, s"), *args).ok
    finding = checked(SAVED.format(saved=saved), *args).findings[0]
    assert (finding.line, finding.proved) == (5, True), str(finding)


def test_a_bare_assignment_has_a_line_of_its_own() -> None:
    text = """\
    def step(x, w, b):
        out = x @ w + b
        loss = out.pow(2).sum()
        dout = 2 * out
        dw = x.T @ dout
        db = dout
        return loss, dw, db
    """
    (finding,) = checked(text, rand(5, 4), rand(4, 3), rand(3)).findings
    assert (finding.line, finding.repair, finding.proved) == (6, "db = dout.sum(0)", True)


def test_a_line_that_is_put_in_stands_alone() -> None:
    text = """\
    def step(x, y):
        loss = -x.log_softmax(1)[torch.arange(len(y)), y].mean()
        dx = x.softmax(1)
        dx[torch.arange(len(y)), y] -= 1
        return loss, dx
    """
    (finding,) = checked(text, rand(5, 4), torch.tensor([0, 3, 1, 1, 2])).findings
    assert finding.edit is not None and finding.edit.inserts and finding.proved
    assert finding.line == finding.edit.line == 4 and finding.text == ""
    assert finding.change() == [f"+ {finding.repair}   # proved"] and finding.repair.startswith("dx = dx / ")


def test_an_entry_of_a_dictionary_is_no_write_through_an_index() -> None:
    text = """\
    def step(x, w):
        loss = (x * w).sigmoid().sum()
        grads = {}
        grads["w"] = x.sum(0)
        return loss, grads
    """
    (finding,) = checked(text, rand(5, 4), rand(4)).findings
    assert finding.proved and finding.repair.startswith('grads["w"] = '), str(finding)


CARRIED = """\
def step(h0, c0, w, x):
    h, c, hs = h0, c0, [(h0, c0)]
    for row in x:
        h, c = torch.tanh(h @ w + row * c), c + 0.5 * h
        hs.append((h, c))
    loss = (h ** 2 + c).sum()
    gh, gc, dw = 2 * h, torch.ones_like(c), torch.zeros_like(w)
    for row, (before, beside), (after, _) in zip(reversed(x), hs[-2::-1], hs[:0:-1]):
        dz = gh * (1 - after ** 2)
        dw += before.T @ dz
        gh, gc = dz @ w.T + 0.5 * gc, gc + (dz * row)
    return loss, dw, gh, gc
"""


@pytest.mark.parametrize("returned", ["loss, dw, gh, gc", '{"loss": loss, "dw": dw, "gh": gh, "gc": gc}'])
def test_what_a_loop_carries_back_is_the_gradient_of_what_it_began_with(returned: str) -> None:
    text = CARRIED.replace("loss, dw, gh, gc\n", returned + "\n")
    inputs = rand(2, 3), rand(2, 3, seed=1), rand(3, 3), rand(4, 2, 3)
    report = checked(text, *inputs)
    assert report.ok and {row.name for row in report.rows} == {"w", "h0", "c0"}, str(report)
    wrong = checked(text.replace("+ (dz * row)", "- (dz * row)"), *inputs)
    assert {"w", "h0", "c0"} == {row.name for row in wrong.rows if row.status == "wrong"}, str(wrong)
    assert [f.line for f in wrong.findings] == [11], str(wrong)


def test_the_gradient_of_a_number_that_a_loop_began_with_is_no_other() -> None:
    text = """
    def step(x0, k):
        x, seen = x0, []
        for _ in range(3):
            seen.append(x)
            x = x - k * x * x
        loss = x ** 2
        gx, dk = 2 * x, 0.0
        for x_ in reversed(seen):
            dk += -gx * x_ * x_
            gx = gx * (1 - 2 * k * x_)
        return loss, dk, gx
    """
    report = checked(text, 1.0, 0.3)
    assert report.ok and report.rows, str(report)
