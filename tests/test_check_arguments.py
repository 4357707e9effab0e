"""`check`: a call of the person's own function that is given something else than it should be."""

from __future__ import annotations

import numpy as np
import pytest
from of_source import of_source

import chainrule as cr

TRIPLET = """\
import numpy as np


def embed(x, w, v):
    a = x @ w
    h = np.tanh(a)
    return h @ v, (x, h)


def embed_back(de, cache, w, v, grads):
    x, h = cache
    grads["v"] += h.T @ de
    da = de @ v.T * (1 - h**2)
    grads["w"] += x.T @ da


def loss(one, near, far, w, v):
    a, of_a = embed(one, w, v)
    b, of_b = embed(near, w, v)
    c, of_c = embed(far, w, v)
    value = ((a - b) ** 2).sum() - ((a - c) ** 2).sum()
    db = 2 * (b - a)
    dc = 2 * (a - c)
    grads = {"w": np.zeros_like(w), "v": np.zeros_like(v)}
    embed_back(-db - dc, of_a, w, v, grads)
    embed_back(db, of_b, w, v, grads)
    embed_back(dc, of_c, w, v, grads)
    return value, grads
"""
AT_THE_CALL = [
    ("embed_back(db, of_b, w, v, grads)", "embed_back(db, of_c, w, v, grads)", "wrong-tensor"),
    ("embed_back(dc, of_c, w, v, grads)", "embed_back(dc, of_a, w, v, grads)", "wrong-tensor"),
    ("embed_back(dc, of_c, w, v, grads)", "embed_back(-dc, of_c, w, v, grads)", "sign"),
    ("embed_back(-db - dc, of_a, w, v, grads)", "embed_back(-db, of_a, w, v, grads)", None),  # no name to give it
]
MIXTURE = """\
import numpy as np


def logsumexp(a, axis):
    m = a.max(axis=axis, keepdims=True)
    return m + np.log(np.exp(a - m).sum(axis=axis, keepdims=True))


def nll(x, mu, alpha):
    n = len(x)
    diff = x[:, None] - mu[None, :]
    joint = alpha - logsumexp(alpha, 0) - 0.5 * diff**2
    value = -logsumexp(joint, 1).mean()
    resp = np.exp(joint - logsumexp(joint, 1))
    dmu = -(resp * diff).sum(0) / n
    dalpha = np.exp(alpha - logsumexp(alpha, 0)) - resp.mean(0)
    return value, dmu, dalpha
"""


def _given(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = {name: rng.normal(size=(5, 3)) for name in ("one", "near", "far")}
    return {**points, "w": rng.normal(size=(3, 4)), "v": rng.normal(size=(4, 2))}


def test_what_is_right_passes() -> None:
    assert cr.check(of_source(TRIPLET)["loss"], **_given(1)).ok
    assert cr.check(of_source(MIXTURE)["nll"], **_mixture(1)).ok


@pytest.mark.parametrize("right, wrong, cause", AT_THE_CALL)
def test_a_wrong_argument_is_one_finding_at_the_call(right: str, wrong: str, cause: str | None) -> None:
    text = TRIPLET.replace(right, wrong)
    report = cr.check(of_source(text)["loss"], **_given(2))
    assert not report.ok
    if cause is None:
        return
    (finding,) = report.findings
    assert (finding.cause, finding.proved) == (cause, True)
    assert wrong in text.splitlines()[finding.line - 1]
    mended = "\n".join(finding.edit.applied(text.splitlines()))
    other = _given(3)
    _, grads = of_source(mended)["loss"](**other)
    truth = of_source(TRIPLET)["loss"](**other)[1]
    assert all(np.allclose(grads[name], truth[name]) for name in truth)


def _mixture(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=7), "mu": rng.normal(size=3), "alpha": rng.normal(size=3)}


def test_another_axis_in_a_value_that_several_lines_read_is_one_finding() -> None:
    text = MIXTURE.replace("np.exp(joint - logsumexp(joint, 1))", "np.exp(joint - logsumexp(joint, 0))")
    (finding,) = cr.check(of_source(text)["nll"], **_mixture(2)).findings
    assert (finding.cause, finding.proved) == ("wrong-axis", True)
    assert finding.edit.lines == ("    resp = np.exp(joint - logsumexp(joint, 1))",)
