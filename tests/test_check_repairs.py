"""The repairs of `check` as an author would write them: in the person's names and numbers, and no longer than needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_check import program, rand

import chainrule as cr


def repair(text: str, *args: Any, **space: Any) -> str:
    """The one repair of the function `step` of `text`, which must be proved."""
    report = cr.check(program(text, **space), *args)
    assert len(report.findings) == 1 and report.findings[0].proved, str(report)
    return report.findings[0].repair


SOFTMAX = """
def step(x, w):
    z = x @ w
    e = np.exp(z - z.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    loss = (p**3).sum()
    dp = 3 * p**2
    dz = {}
    dw = x.T @ dz
    return loss, dw
"""


@pytest.mark.parametrize("line", ["dp * p * (1 - p)", "p * (1 - p)", "p * dp"])
def test_the_jacobian_of_a_softmax_is_written_in_numpy(line: str) -> None:
    x, w = rand(5, 4).numpy(), rand(4, 3).numpy()
    assert repair(SOFTMAX.format(line), x, w, np=np) in (
        "dz = p * (dp - (dp * p).sum(axis=-1, keepdims=True))",
        "dz = p * (dp - (p * dp).sum(axis=-1, keepdims=True))",
    )
