"""`check`: a softmax whose Jacobian is written out row by row, into an array that holds nothing yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from of_source import of_source

import chainrule as cr

STEP = """\
import numpy as np


def step(x, w, b, y):
    z = x @ w + b
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    dp = np.zeros_like(p)
    dp[rows, y] = -1 / p[rows, y] / len(y)
    dz = np.empty_like(dp)
    for i, (row, drow) in enumerate(zip(p, dp)):
        row = row.reshape(-1, 1)
        dz[i] = np.dot(np.diagflat(row) - np.dot(row, row.T), drow)
    dw = x.T @ dz
    db = dz.sum(axis=0)
    return loss, dw, db
"""
WRONG = [
    ("np.diagflat(row) - np.dot(row, row.T)", "np.diagflat(row * (1 - row))"),
    ("np.diagflat(row) - np.dot(row, row.T)", "np.diagflat(row) + np.dot(row, row.T)"),
    ("-1 / p[rows, y] / len(y)", "1 / p[rows, y] / len(y)"),
]


def check(source: str, n: int) -> Any:
    space = of_source(source)
    r = np.random.default_rng(n)
    return cr.check(
        space["step"], r.standard_normal((n, 4)), r.standard_normal((4, 3)), np.ones(3), r.integers(0, 3, n)
    )


def test_rows_of_a_jacobian_are_right() -> None:
    assert check(STEP, 6).ok


@pytest.mark.parametrize(("right", "wrong"), WRONG)
def test_what_is_proved_is_right(right: str, wrong: str) -> None:
    source = STEP.replace(right, wrong)
    report = check(source, 6)
    assert not report.ok
    for finding in report.findings:
        if finding.proved:
            assert finding.edit is not None
            assert check("\n".join(finding.edit.applied(source.splitlines())), 5).ok


def test_a_sum_into_what_nothing_was_written_into_is_no_repair() -> None:
    source = STEP.replace("dz[i] = np.dot(", "dz[0] = np.dot(")
    report = check(source, 6)
    assert not report.ok
    assert not any(f.proved and "+=" in f.repair for f in report.findings)
