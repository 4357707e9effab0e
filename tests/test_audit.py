"""The check of a check: which planted mistakes a gradient test notices, and why the others pass."""

from __future__ import annotations

import itertools
import random
import types
from functools import cache
from pathlib import Path
from typing import Any

import audited
import numpy as np
import pytest
import torch
from audited import (
    PARAMETERS,
    BatchNorm,
    LayerNorm,
    Linear,
    Scaled,
    b1,
    batch_norm_of_ones,
    broadcasting_test,
    column,
    directions,
    function_test,
    gradcheck_test,
    layer_norm_test,
    loose_test,
    mean_of_differences,
    mlp,
    mlp_forward_only,
    mlp_test,
    one_layer,
    one_layer_test,
    ones_test,
    only_w,
    shapes_broadcast,
    signed_mean,
    small,
    tight,
    w1,
    x,
    y,
)

import chainrule as cr
from chainrule.diagnosis.auditing.audit_report import Audit


@cache
def audit_of(test: Any, code: Any) -> Audit:
    return cr.audit(test, code)


@pytest.fixture(autouse=True)
def without_older_gradients() -> None:
    for tensor in PARAMETERS.values():
        vars(tensor).clear()


def _codes() -> list[types.CodeType]:
    spaces = [vars(audited), *(vars(kind) for kind in (LayerNorm, Scaled, BatchNorm, Linear))]
    held = [getattr(value, "__func__", value) for space in spaces for value in space.values()]
    return [value.__code__ for value in held if type(value) is types.FunctionType]


@pytest.mark.parametrize(
    "test, code, least",
    [
        (mlp_test, mlp, 30),
        (layer_norm_test, LayerNorm, 25),
        (function_test, Scaled, 15),
    ],
)
def test_a_good_test_catches_all(test: Any, code: Any, least: int) -> None:
    found = audit_of(test, code)
    made = len(found.caught) + len(found.survived)
    assert found.share >= 0.95 and made >= least, found
    assert f"{made} mistakes" in str(found)
    assert {"sign", "wrong-scale", "missing-gradient"} <= {m.cause for m in found.caught}


BAD = [
    (loose_test, small, {"w.g"}, "w.g may be 10 times as large"),
    (gradcheck_test, Scaled, {"the gradient of w"}, "an error of 0.1 %"),
    (only_w, mlp, {"b1.g", "b2.g"}, "b2.g and b1.g are not compared"),
    (mlp_forward_only, mlp, {"w1.g", "b1.g", "w2.g", "b2.g"}, "not compared"),
    (signed_mean, mlp, {"w1.g", "b1.g", "w2.g", "b2.g"}, "without an absolute value"),
    (mean_of_differences, mlp, {"b1.g"}, "only a mean or a sum"),
    (broadcasting_test, column, {"v.g"}, "only a mean or a sum"),
    (directions, mlp, {"w1.g"}, "only the direction"),
    (batch_norm_of_ones, BatchNorm, {"the gradient of x"}, "is zero in the test"),
    (ones_test, Scaled, {"the gradient of x"}, "all ones in the test"),
    (shapes_broadcast, mlp, {"b1.g", "b2.g"}, "compare the shapes, too"),
]


@pytest.mark.parametrize("test, code, gradients, hint", BAD, ids=[case[0].__name__ for case in BAD])
def test_a_bad_test_lets_mistakes_pass(test: Any, code: Any, gradients: set[str], hint: str) -> None:
    found = audit_of(test, code)
    assert not found and gradients <= {m.gradient for m in found.survived}, found
    assert any(hint in told for told in found.hints), found
    assert all(m.line and m.before != m.after for m in found.survived)


@pytest.mark.parametrize("test, code", [(function_test, Scaled), (signed_mean, mlp)])
def test_the_same_twice_and_everything_as_before(test: Any, code: Any) -> None:
    before, numbers = _codes(), {n: p.clone() for n, p in PARAMETERS.items()}
    drawn, own = torch.get_rng_state(), random.getstate()
    first = cr.audit(test, code)
    assert all(a is b for a, b in zip(_codes(), before, strict=True))
    assert all(torch.equal(PARAMETERS[n], p) and not vars(PARAMETERS[n]) for n, p in numbers.items())
    assert torch.equal(torch.get_rng_state(), drawn) and random.getstate() == own
    assert str(audit_of(test, code)) == str(first)


def test_never_calling_backward() -> None:
    def forward_only() -> None:
        Scaled.apply(x, w1.clone().requires_grad_(), b1)

    found = cr.audit(forward_only, Scaled)
    assert found.share == 0.0 and "never runs the line" in found.hints[0], found
    with pytest.raises(cr.ChainruleError, match="never calls small, so its inputs are not known"):
        cr.audit(forward_only, small)
    found = cr.audit(forward_only, small, x, w1)
    assert found.share == 0.0


def test_what_is_refused() -> None:
    def failing() -> None:
        raise AssertionError("no")

    with pytest.raises(cr.ChainruleError, match=r"failing fails on mlp as it is \(AssertionError: no\)"):
        cr.audit(failing, mlp)
    with pytest.raises(cr.ChainruleError, match="takes seed"):
        cr.audit(lambda seed: None, mlp)
    with pytest.raises(cr.ChainruleError, match="which int is not"):
        cr.audit(3, mlp)
    with pytest.raises(cr.ChainruleError, match="fails on Linear as it is"):
        cr.audit(lambda: torch.autograd.gradcheck(Linear.apply, [x.requires_grad_(), w1, b1]), Linear)
    assert not x.requires_grad


def test_wrong_code_that_passes_is_noted() -> None:
    def blind() -> None:
        Linear.apply(x, w1, b1)

    found = cr.audit(blind, Linear)
    assert "wrong as it is" in found.notes[0] and "note: blind passes" in str(found)


def test_an_interrupted_test_leaves_the_code_as_it_was() -> None:
    runs = itertools.count()  # which no audit sets back
    code = mlp.__code__

    def interrupted() -> None:
        mlp(x, y)
        if next(runs) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cr.audit(interrupted, mlp)
    assert mlp.__code__ is code and "g" not in vars(w1)


def test_settings_of_a_failing_test_do_not_stay() -> None:
    def sets() -> None:
        torch.set_default_dtype(torch.float64)
        one_layer_test()
        torch.set_default_dtype(torch.float32)

    assert cr.audit(sets, one_layer)
    assert torch.get_default_dtype() is torch.float32


def test_gradients_of_an_earlier_run_do_not_hide_a_missing_one() -> None:
    one_layer(x)
    left = w1.g
    assert cr.audit(one_layer_test, one_layer)
    assert w1.g is left


def test_a_model_of_chainrule() -> None:
    class Lin(cr.Module):
        def __init__(self, w: torch.Tensor) -> None:
            self.w = w

        def forward(self, inp: torch.Tensor) -> torch.Tensor:
            return inp @ self.w

        def bwd(self, out: Any, inp: Any) -> None:
            inp.g = out.g @ self.w.T
            self.w.g = inp.T @ out.g

    def test() -> None:
        layer, inp = Lin(w1), x.clone()
        out = layer(inp)
        out.g = x[:, :4] * 2
        layer.backward()
        tight(layer.w.g, inp.T @ out.g)
        tight(inp.g, out.g @ w1.T)

    found = cr.audit(test, Lin)
    assert found.share == 1.0 and len(found.caught) > 8, found
    assert cr.audit(test, Lin(w1), x).share == 1.0


def affine(x: Any, w: Any) -> Any:
    return x @ w, (x, w)


def affine_backward(dout: Any, cache: Any) -> Any:
    x, w = cache
    dx = dout @ w.T
    dw = x.T @ dout
    return dx, dw


def test_a_pair_of_numpy_functions() -> None:
    a, b, up = x.numpy(), w1.numpy(), x[:, :4].numpy()

    def test() -> bool:
        _, cache = affine(a, b)
        dx, dw = affine_backward(up, cache)
        return bool(abs(dx - up @ b.T).max() < 1e-12 and abs(dw - a.T @ up).max() < 1e-12)

    found = cr.audit(test, affine_backward, forward=affine)
    assert found and len(found.caught) > 10, found


def test_the_report_reads() -> None:
    found = audit_of(only_w, mlp)
    assert isinstance(found, Audit) and repr(found) == f"Audit({str(found.table()).splitlines()[-1]})"
    assert "hint: " in str(found) and f"{Path(audited.__file__).name}:" in str(found)


def rows(table: Any, at: Any) -> Any:
    return table[at], (table, at)


def rows_backward(dout: Any, cache: Any) -> Any:
    table, at = cache
    dtable = np.zeros_like(table)
    np.add.at(dtable, at, dout)
    return dtable


def test_a_gradient_that_is_written_in_place_has_mistakes_of_several_sizes() -> None:
    table, at, up = x.numpy(), np.array([0, 2, 2, 1]), x.numpy()[:1] * np.arange(1.0, 5)[:, None]
    right = np.zeros_like(table)
    np.add.at(right, at, up)

    def test() -> bool:
        return bool(abs(rows_backward(up, rows(table, at)[1]) - right).max() < 0.005 * abs(right).max())

    found = cr.audit(test, rows_backward, forward=rows)
    scales = {m.after: m.change for m in [*found.caught, *found.survived] if m.cause in ("wrong-scale", "sign")}
    assert scales["dtable = 2 * dtable"] == pytest.approx(1) and scales["dtable = -dtable"] == pytest.approx(2)
    assert [m.lines() for m in found.survived] == [["+ dtable = 1.001 * dtable"]]
