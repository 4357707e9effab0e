"""`check`: gradients that stand at the same keys as their parameters, in dictionaries of dictionaries and lists of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_check_forms import defined

import chainrule as cr

STEP = """
import LIBRARY as np

def step(x, P):
    h = np.tanh(x @ P[0]["w"] + P[0]["b"])
    o = np.tanh(h @ P[1]["w"] + P[1]["b"])
    loss = (o * o).sum()
    do = 2 * o * (1 - o * o)
    dh = do @ P[1]["w"].T * (1 - h * h)
    first = {"w": x.T @ dh, "b": dh.sum(0)}
    last = {"w": h.T @ do, "b": do.sum(0)}
    return loss, [first, last]
"""
SPELLINGS: dict[str, dict[str, str]] = {
    "a list of dictionaries": {},
    "from the last layer to the first": {"[first, last]": "[last, first]"},
    "with d before the names": {'{"w": ': '{"dw": ', ', "b": ': ', "db": '},
    "a dictionary of dictionaries": {"[0]": '["a"]', "[1]": '["b"]', "[first, last]": '{"b": last, "a": first}'},
    "beside the gradient of x": {"return": "dx = dh @ P[0]['w'].T\n    return dx,"},
    "beside stepped parameters": {
        "return loss, [first, last]": "Q = [{k: p[k] - 0.1 * g[k] for k in p} for p, g in zip(P, [first, last])]\n"
        "    return Q, [first, last], loss"
    },
}


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_gradients_at_the_same_keys(spelling: str, library: str) -> None:
    text = STEP.replace("LIBRARY", library)
    for old, new in SPELLINGS[spelling].items():
        text = text.replace(old, new)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Any:
        value = torch.randn(shape, generator=generator)
        return value.double().numpy() if library == "numpy" else value

    layers: Any = [{"w": drawn(4, 4), "b": drawn(4)}, {"w": drawn(4, 4), "b": drawn(4)}]
    if "dictionary of" in spelling:
        layers = dict(zip("ab", layers, strict=True))
    args = drawn(6, 4), layers
    r = cr.check(defined(text, "step"), *args)
    assert r.ok and len(r.rows) == 4 + ("x" in spelling.split()), str(r)
    r = cr.check(defined(text.replace("dh.sum(0)", "dh.mean(0)"), "step"), *args)
    (finding,) = r.findings
    key = "P.a.b" if "dictionary of" in spelling else "P.0.b"
    assert (finding.name, finding.cause, finding.line, finding.proved) == (key, "wrong-scale", 10, True), str(r)


MOMENTUM = """
def step(x, y, params, m):
    out = x @ params["w"] + params["b"]
    loss = (out - y).pow(2).mean()
    d = 2 * (out - y) / out.numel()
    grads = {"w": x.T @ d, "b": d.sum(0)}
    for k in params:
        m[k] = 0.9 * m[k] + grads[k]
        params[k] = params[k] - 0.1 * m[k]
    return loss, grads
"""


def test_a_momentum_has_no_gradient() -> None:
    def zeros() -> dict[str, torch.Tensor]:
        return {"w": torch.zeros(5, 3), "b": torch.zeros(3)}

    x, y = torch.randn(6, 5), torch.randn(6, 3)
    r = cr.check(defined(MOMENTUM, "step"), x, y, zeros(), zeros())
    assert r.ok and {row.name for row in r.rows} == {"params.w", "params.b"}, str(r)
    r = cr.check(defined(MOMENTUM.replace("d.sum(0)", "d.mean(0)"), "step"), x, y, zeros(), zeros())
    assert [(f.name, f.cause, f.proved) for f in r.findings] == [("params.b", "wrong-scale", True)], str(r)
