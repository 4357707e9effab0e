"""`check`: a batch norm taken apart into single steps, where a gradient comes in parts that have names of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from of_source import of_source

import chainrule as cr

STAGED = """\
import numpy as np


def forward(x, gamma, beta, eps=1e-5):
    n, d = x.shape
    mu = 1.0 / n * np.sum(x, axis=0)
    xmu = x - mu
    sq = xmu ** 2
    var = 1.0 / n * np.sum(sq, axis=0)
    sqrtvar = np.sqrt(var + eps)
    ivar = 1.0 / sqrtvar
    xhat = xmu * ivar
    return gamma * xhat + beta, (xhat, gamma, xmu, ivar, sqrtvar, var, eps)


def backward(dout, cache):
    xhat, gamma, xmu, ivar, sqrtvar, var, eps = cache
    n, d = dout.shape
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    divar = np.sum(dxhat * xmu, axis=0)
    dxmu1 = dxhat * ivar
    dsqrtvar = -1.0 / (sqrtvar ** 2) * divar
    dvar = 0.5 * 1.0 / np.sqrt(var + eps) * dsqrtvar
    dsq = 1.0 / n * np.ones((n, d)) * dvar
    dxmu2 = 2 * xmu * dsq
    dx1 = dxmu1 + dxmu2
    dmu = -1 * np.sum(dxmu1 + dxmu2, axis=0)
    dx2 = 1.0 / n * np.ones((n, d)) * dmu
    dx = dx1 + dx2
    return dx, dgamma, dbeta
"""


def check(source: str, n: int, d: int) -> Any:
    space = of_source(source)
    r = np.random.default_rng(n)
    given = r.standard_normal((n, d)) * 2 + 1, r.standard_normal(d), r.standard_normal(d)
    return cr.check(space["backward"], *given, forward=space["forward"])


@pytest.mark.parametrize(
    ("right", "wrong", "cause"),
    [
        ("dmu = -1 * np.sum(dxmu1 + dxmu2, axis=0)", "dmu = -1 * np.sum(dxmu2, axis=0)", None),
        ("dxmu2 = 2 * xmu * dsq", "dxmu2 = xmu * dsq", "wrong-scale"),
        ("dsqrtvar = -1.0 / (sqrtvar ** 2)", "dsqrtvar = -1.0 / sqrtvar", "wrong-exponent"),
        ("divar = np.sum(dxhat * xmu, axis=0)", "divar = np.sum(dxhat * xhat, axis=0)", "wrong-tensor"),
        ("dx2 = 1.0 / n * np", "dx2 = np", "wrong-scale"),
    ],
)
def test_a_mistake_in_a_step_is_one_finding_on_its_line(right: str, wrong: str, cause: str | None) -> None:
    assert check(STAGED, 6, 4).ok
    source = STAGED.replace(right, wrong)
    (finding,) = check(source, 6, 4).findings
    assert finding.line == 1 + next(i for i, line in enumerate(source.splitlines()) if wrong in line)
    assert cause in (finding.cause, None)
    assert finding.proved and finding.edit is not None
    assert check("\n".join(finding.edit.applied(source.splitlines())), 5, 3).ok


def test_a_part_that_is_lost_is_one_finding_whose_repair_holds_elsewhere() -> None:
    source = STAGED.replace("dx1 = dxmu1 + dxmu2", "dx1 = dxmu2")
    (finding,) = check(source, 6, 4).findings
    assert finding.cause == "lost-path"
    assert finding.proved and finding.edit is not None
    assert check("\n".join(finding.edit.applied(source.splitlines())), 5, 3).ok
