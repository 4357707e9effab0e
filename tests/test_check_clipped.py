"""`check`: gradients that are clipped for the step are checked as they were before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr

RECURRENT = """\
import numpy as np


def loss_and_gradients(inputs, targets, hprev, Wxh, Whh, Why, bh, by):
    xs, hs, ps, loss = {}, {-1: np.copy(hprev)}, {}, 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((Wxh.shape[1], 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t - 1]) + bh)
        y = np.dot(Why, hs[t]) + by
        ps[t] = np.exp(y) / np.sum(np.exp(y))
        loss += -np.log(ps[t][targets[t], 0])
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby = np.zeros_like(bh), np.zeros_like(by)
    dhnext = np.zeros_like(hs[0])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Why.T, dy) + dhnext
        dhraw = (1 - hs[t] * hs[t]) * dh
        dbh += dhraw
        dWxh += np.dot(dhraw, xs[t].T)
        dWhh += np.dot(dhraw, hs[t - 1].T)
        dhnext = np.dot(Whh.T, dhraw)
    for dparam in [dWxh, dWhh, dWhy, dbh, dby]:
        np.clip(dparam, -5, 5, out=dparam)
    return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs) - 1]
"""
LEFT = """\
def step(x, w, y):
    h = x @ w
    loss = ((h - y) ** 2).sum()
    h.g = 2 * (h - y)
    w.g = x.T @ h.g
    for p in (w,):
        p.g.clamp_(-0.1, 0.1)
    return loss
"""
RETURNED = """\
def step(x, w, y):
    h = x @ w
    loss = ((h - y) ** 2).sum()
    dh = 2 * (h - y)
    dw = x.T @ dh
    dw = dw.clamp(-0.1, 0.1)
    dx = torch.clip(dh @ w.T, -1.0, 1.0)
    return loss, dx, dw
"""


def function(source: str, name: str) -> Any:
    return of_source(source, torch=torch)[name]


def sequence() -> tuple[Any, ...]:
    r = np.random.default_rng(0)
    weights = (0.1 * r.standard_normal(s) for s in ((4, 5), (4, 4), (5, 4)))
    return [0, 1, 2, 3], [1, 2, 3, 4], np.zeros((4, 1)), *weights, np.zeros((4, 1)), np.zeros((5, 1))


@pytest.mark.parametrize(("limit", "notes"), [(5, []), (0.4, ["dby"])])
def test_what_is_clipped_in_a_loop_over_all(limit: float, notes: list[str]) -> None:
    source = RECURRENT.replace("-5, 5", f"-{limit}, {limit}")
    report = cr.check(function(source, "loss_and_gradients"), *sequence())
    assert report.ok
    assert [n.split()[0] for n in report.notes] == notes
    lines = source.splitlines()
    assert {lines[row.line - 1].split()[0] for row in report.rows if row.line} == {"dWxh", "dWhh", "dWhy", "dbh", "dby"}


@pytest.mark.parametrize(
    ("right", "wrong", "cause"),
    [
        ("dbh += dhraw", "dbh = dhraw", "overwritten-not-accumulated"),
        ("dWhh += np.dot(dhraw, hs[t - 1].T)", "dWhh += np.dot(dhraw, hs[t].T)", "wrong-tensor"),
    ],
)
def test_a_mistake_before_it_has_its_line(right: str, wrong: str, cause: str) -> None:
    source = RECURRENT.replace(right, wrong)
    (finding,) = cr.check(function(source, "loss_and_gradients"), *sequence()).findings
    assert (finding.text, finding.cause, finding.repair, finding.proved) == (wrong, cause, right, True)


@pytest.mark.parametrize(("source", "clipped"), [(LEFT, {"w.g"}), (RETURNED, {"dw", "dx"})])
def test_gradients_of_tensors_that_are_clipped(source: str, clipped: set[str]) -> None:
    args = torch.randn(4, 3), torch.randn(3, 2), torch.randn(4, 2)
    report = cr.check(function(source, "step"), *args)
    assert report.ok
    assert {n.split()[0] for n in report.notes} == clipped
    (finding,) = cr.check(function(source.replace("2 * (h - y)", "(h - y)"), "step"), *args).findings
    assert (finding.cause, finding.proved) == ("wrong-scale", True)


def test_a_limit_on_one_side_is_part_of_the_gradient() -> None:
    source = RETURNED.replace("dw.clamp(-0.1, 0.1)", "dw.clamp(min=0)")
    assert not cr.check(function(source, "step"), torch.randn(4, 3), torch.randn(3, 2), torch.randn(4, 2)).ok
