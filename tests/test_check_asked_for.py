"""`check`: of which values gradients are looked for: what `wrt` names, what stands beside the parameters, what is data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr
from chainrule.errors import ChainruleError

TWO_LAYERS = """\
import numpy as np


def step(x, y, w1, w2):
    h = np.tanh(x @ w1)
    err = h @ w2 - y
    grads = {}
    grads["KEYw2"] = h.T @ err
    grads["KEYw1"] = x.T @ (err @ w2.T * (1 - h**2))
    return 0.5 * (err**2).sum(), grads
"""
ON_A_GRAPH = """\
import numpy as np


def step(params, a, x, y):
    p = a @ x
    h = np.tanh(p @ params["w0"])
    err = a @ h @ params["w1"] - y
    dw1 = (a @ h).T @ err
    dh = a.T @ (err @ params["w1"].T)
    return 0.5 * (err**2).sum(), {"w0": p.T @ (dh * (1 - h**2)), "w1": dw1}
"""
STEPS = """\
import torch


def step(xs, ys, w, v):
    hs, preds, loss = {-1: torch.zeros(xs.shape[1], w.shape[0])}, {}, 0.0
    for t in range(len(xs)):
        hs[t] = torch.tanh(xs[t] + hs[t - 1] @ w)
        preds[t] = hs[t] @ v
        loss = loss + 0.5 * (preds[t] - ys[t]).pow(2).sum()
    dw, dv, dnext = torch.zeros_like(w), torch.zeros_like(v), torch.zeros_like(hs[0])
    for t in reversed(range(len(xs))):
        dpred = preds[t] - ys[t]
        dv += hs[t].T @ dpred
        dz = (dpred @ v.T + dnext) * (1 - hs[t] ** 2)
        dw += hs[t - 1].T @ dz
        dnext = dz @ w.T
    return loss, dw, dv
"""


def _normal(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("key", ["", "d", "grad_"])
@pytest.mark.parametrize("wrt", [["w1", "w2"], ["w2", "w1"]])
def test_keys_tell_what_they_are_of_in_any_order(key: str, wrt: list[str]) -> None:
    step = of_source(TWO_LAYERS.replace("KEY", key))["step"]
    report = cr.check(step, *_normal((5, 3), (5, 2), (3, 4), (4, 2)), wrt=wrt)
    assert report.ok and sorted(row.name for row in report.rows) == ["w1", "w2"]


def test_what_square_data_are_applied_to_is_data() -> None:
    given = _normal((6, 6), (6, 3), (6, 2), (3, 4), (4, 2))
    plain = ON_A_GRAPH.replace("params, a, x, y", "a, x, y, w0, w1")
    plain = plain.replace('params["w0"]', "w0").replace('params["w1"]', "w1")
    assert cr.check(of_source(plain)["step"], *given).ok


def test_data_beside_the_parameters_have_no_gradient() -> None:
    a, x, y, w0, w1 = _normal((6, 6), (6, 3), (6, 2), (3, 4), (4, 2))
    report = cr.check(of_source(ON_A_GRAPH)["step"], {"w0": w0, "w1": w1}, a, x, y)
    assert report.ok and len(report.rows) == 2
    left = ON_A_GRAPH.replace(', "w1": dw1}', "}")
    (finding,) = cr.check(of_source(left)["step"], {"w0": w0, "w1": w1}, a, x, y).findings
    assert finding.cause == "missing-gradient" and "w1" in finding.name


def test_an_object_without_a_forward_pass_is_refused_in_a_sentence() -> None:
    class Net:
        def backward(self) -> None: ...

    with pytest.raises(ChainruleError, match=r"Net has no forward\(\)"):
        cr.check(Net(), *_normal((2, 3)))


def test_a_wrong_sign_is_not_taken_for_the_gradient_of_the_targets() -> None:
    text = STEPS.replace("dpred = preds[t] - ys[t]", "dpred = ys[t] - preds[t]")
    given = [torch.from_numpy(v).float() for v in _normal((4, 3, 5), (4, 3, 2), (5, 5), (5, 2))]
    assert cr.check(of_source(STEPS)["step"], *given).ok
    (finding,) = cr.check(of_source(text)["step"], *given).findings
    assert (finding.cause, finding.proved, finding.repair) == ("sign", True, "dpred = preds[t] - ys[t]")


def test_a_weight_is_missed_where_data_would_not_be() -> None:
    square = TWO_LAYERS.replace("KEY", "").replace('    grads["w1"] = x.T @ (err @ w2.T * (1 - h**2))\n', "")
    (finding,) = cr.check(of_source(square)["step"], *_normal((4, 4), (4, 2), (4, 5), (5, 2))).findings
    assert finding.cause == "missing-gradient" and finding.name == "w1"
    apart = square.replace("x, y, w1, w2", "params, w1, x, y").replace("w2", 'params["w2"]')
    apart = apart.replace('grads["params["w2"]"]', 'grads["w2"]')
    w1, w2, x, y = _normal((3, 4), (4, 2), (6, 3), (6, 2))
    assert cr.check(of_source(apart)["step"], {"w2": w2}, w1, x, y).ok  # combined with data alone
    last = apart.replace('grads["w2"] = h.T @ err', 'grads["w2"] = x.T @ (err @ w1.T * (1 - h**2))')
    last = last.replace('h @ params["w2"]', "h @ w1").replace("np.tanh(x @ w1)", 'np.tanh(x @ params["w2"])')
    (finding,) = cr.check(of_source(last)["step"], {"w2": w1}, w2, x, y).findings
    assert finding.cause == "missing-gradient" and finding.name == "w1"


def test_a_gradient_of_a_value_on_the_way_is_not_taken_for_that_of_an_input() -> None:
    text = """\
import numpy as np


def step(x, w, y):
    z = x @ w
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    grad = p - y
    return -(y * np.log(p)).sum(), grad
"""
    with pytest.raises(ChainruleError, match="wrt="):
        cr.check(of_source(text)["step"], *_normal((5, 3), (3, 4)), np.eye(4)[[0, 1, 2, 3, 0]])
