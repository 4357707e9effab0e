"""The check of a check: which planted mistakes a gradient test notices, and why the others pass."""

from __future__ import annotations

import json
import random
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import chainrule as cr
from chainrule.cli import main
from chainrule.diagnosis.audit_report import Audit

generator = torch.Generator().manual_seed(0)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


x, y = randn(7, 5), randn(7, 3)
w1, b1, w2, b2 = randn(5, 4), randn(4), randn(4, 3), randn(3)
PARAMETERS = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


def mlp(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    l1 = x @ w1 + b1
    l2 = l1.clamp_min(0.0)
    out = l2 @ w2 + b2
    diff = out - y
    loss = diff.pow(2).mean()
    out.g = 2 * diff / diff.numel()
    b2.g = out.g.sum(0)
    w2.g = l2.T @ out.g
    l2.g = out.g @ w2.T
    l1.g = l2.g * (l1 > 0)
    b1.g = l1.g.sum(0)
    w1.g = x.T @ l1.g
    return loss


def truth(scale: float = 1.0) -> dict[str, torch.Tensor]:
    leaves = [p.clone().requires_grad_() for p in PARAMETERS.values()]
    a, b, c, d = leaves
    loss = ((x @ a + b).clamp_min(0.0) @ c + d - y).pow(2).mean() * scale
    return dict(zip(PARAMETERS, torch.autograd.grad(loss, leaves), strict=True))


def tight(found: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12)


def test_mlp_good() -> None:
    mlp(x, y)
    for name, g in truth().items():
        tight(PARAMETERS[name].g, g)


def only_w() -> None:
    mlp(x, y)
    g = truth()
    tight(w1.g, g["w1"])
    tight(w2.g, g["w2"])


def mlp_forward_only() -> None:
    torch.testing.assert_close(mlp(x, y), mlp(x, y))


def signed_mean() -> bool:
    mlp(x, y)
    return all(bool((PARAMETERS[n].g - g).mean() < 1e-3) for n, g in truth().items())


def mean_of_differences() -> None:
    mlp(x, y)
    for name, g in truth().items():
        assert abs(float((PARAMETERS[name].g - g).mean())) < 1e-9


def directions() -> None:
    mlp(x, y)
    for name, g in truth().items():
        tight(torch.nn.functional.normalize(PARAMETERS[name].g.flatten(), dim=0),
              torch.nn.functional.normalize(g.flatten(), dim=0))  # fmt: skip


class LayerNorm:
    def __init__(self) -> None:
        self.w, self.b = randn(6), randn(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.x = x
        self.mean = x.mean(-1, keepdim=True)
        self.rstd = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).rsqrt()
        self.hat = (x - self.mean) * self.rstd
        return self.hat * self.w + self.b

    def backward(self, dout: torch.Tensor) -> torch.Tensor:
        self.dw = (dout * self.hat).sum(0)
        self.db = dout.sum(0)
        dhat = dout * self.w
        centred = dhat - dhat.mean(-1, keepdim=True) - self.hat * (dhat * self.hat).mean(-1, keepdim=True)
        dx = centred * self.rstd
        return dx


rows, upstream = randn(5, 6), randn(5, 6)


def layer_norm_test() -> None:
    layer = LayerNorm()
    layer.forward(rows)
    dx = layer.backward(upstream)
    leaves = [t.clone().requires_grad_() for t in (rows, layer.w, layer.b)]
    out = torch.nn.functional.layer_norm(leaves[0], (6,), leaves[1], leaves[2])
    for found, right in zip((dx, layer.dw, layer.db), torch.autograd.grad(out, leaves, upstream), strict=True):
        tight(found, right)


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return torch.tanh(x @ w + b)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        grad_x = grad @ w.T
        return grad_x, x.T @ grad, grad.sum(0)


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return x @ w * 3 + b

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        grad_x = 3 * grad @ w.T
        return grad_x, 3 * x.T @ grad, grad.sum(0)


def function_test() -> None:
    leaves = [t.clone().requires_grad_() for t in (x, w1, b1)]
    again = [t.clone().requires_grad_() for t in (x, w1, b1)]
    up = torch.randn(7, 4, dtype=torch.float64)
    found = torch.autograd.grad(Scaled.apply(*leaves), leaves, up)
    for a, b in zip(found, torch.autograd.grad(again[0] @ again[1] * 3 + again[2], again, up), strict=True):
        tight(a, b)


def gradcheck_test() -> None:
    leaves = [t.clone().requires_grad_() for t in (x, w1, b1)]
    assert torch.autograd.gradcheck(Scaled.apply, leaves)


def ones_test() -> None:
    leaves = [t.clone().requires_grad_() for t in (x, w1, b1)]
    again = [t.clone().requires_grad_() for t in (x, w1, b1)]
    found = torch.autograd.grad(Scaled.apply(*leaves).sum(), leaves)
    for a, b in zip(found, torch.autograd.grad((again[0] @ again[1] * 3 + again[2]).sum(), again), strict=True):
        tight(a, b)


class BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        rstd = (x.var(0, unbiased=False) + 1e-5).rsqrt()
        hat = (x - x.mean(0)) * rstd
        ctx.save_for_backward(hat, rstd)
        return hat

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        hat, rstd = ctx.saved_tensors
        return (grad - grad.mean(0) - hat * (grad * hat).mean(0)) * rstd


def batch_norm_of_ones() -> None:
    leaf, again = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    BatchNorm.apply(leaf).sum().backward()
    torch.nn.functional.batch_norm(again, None, None, training=True).sum().backward()
    torch.testing.assert_close(leaf.grad, again.grad, rtol=1e-6, atol=1e-9)


def small(x: torch.Tensor, w: torch.Tensor) -> None:
    out = x @ w
    loss = (out * 1e-4).sum()  # noqa: F841
    out.g = torch.full_like(out, 1e-4)
    w.g = x.T @ out.g


def loose_test() -> None:
    w = w1.clone()
    small(x, w)
    assert torch.allclose(w.g, x.T @ torch.full((7, 4), 1e-4, dtype=torch.float64), atol=0.01)


def column(x: torch.Tensor, v: torch.Tensor) -> None:
    out = x @ v
    loss = out.pow(2).sum()  # noqa: F841
    out.g = 2 * out
    v.g = x.T @ out.g


def broadcasting_test() -> None:
    v = w1[:, :1].clone()
    column(x, v)
    right = (2 * x.T @ (x @ v))[:, 0]  # (5,) against (5, 1)
    assert abs(float((v.g - right).mean())) < 1e-9


def shapes_broadcast() -> None:
    mlp(x, y)
    for name, g in truth().items():
        assert torch.allclose(PARAMETERS[name].g, g, rtol=1e-10, atol=1e-12)


@pytest.fixture(autouse=True)
def without_older_gradients() -> None:
    for tensor in PARAMETERS.values():
        vars(tensor).clear()


def _codes() -> list[types.CodeType]:
    spaces = [globals(), *(vars(kind) for kind in (LayerNorm, Scaled, BatchNorm, Linear))]
    held = [getattr(value, "__func__", value) for space in spaces for value in space.values()]
    return [value.__code__ for value in held if type(value) is types.FunctionType]


@pytest.mark.parametrize(
    "test, code, least",
    [
        (test_mlp_good, mlp, 30),
        (layer_norm_test, LayerNorm, 25),
        (function_test, Scaled, 15),
    ],
)
def test_a_good_test_catches_all(test: Any, code: Any, least: int) -> None:
    found = cr.audit(test, code)
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
    found = cr.audit(test, code)
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
    assert str(cr.audit(test, code)) == str(first)


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
    runs = 0
    code = mlp.__code__

    def interrupted() -> None:
        nonlocal runs
        runs += 1
        mlp(x, y)
        if runs > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cr.audit(interrupted, mlp)
    assert mlp.__code__ is code and "g" not in vars(w1)


def test_settings_of_a_failing_test_do_not_stay() -> None:
    def sets() -> None:
        torch.set_default_dtype(torch.float64)
        test_mlp_good()
        torch.set_default_dtype(torch.float32)

    assert cr.audit(sets, mlp)
    assert torch.get_default_dtype() is torch.float32


def test_gradients_of_an_earlier_run_do_not_hide_a_missing_one() -> None:
    mlp(x, y)
    left = w1.g
    assert cr.audit(test_mlp_good, mlp)
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


NET = """\
import torch

w = torch.randn(4, 3)
b = torch.randn(3)

def step(x):
    out = x @ w + b
    loss = out.pow(2).sum()
    out.g = 2 * out
    w.g = x.T @ out.g
    b.g = out.g.sum(0)
"""
TESTS = """\
import torch, unittest
from net import b, step, w

def compare(also_b):
    print("said by the test")
    x = torch.randn(5, 4)
    step(x)
    out = x @ w + b
    torch.testing.assert_close(w.g, x.T @ (2 * out))
    if also_b:
        torch.testing.assert_close(b.g, (2 * out).sum(0))

def test_good():
    compare(True)

def test_bad():
    compare(False)

class TestStep(unittest.TestCase):
    def test_good(self):
        compare(True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys

    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "test_net.py").write_text(TESTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("net", "test_net"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("test", ["test_good", "TestStep.test_good"])
def test_command_of_a_good_test(folder: Path, test: str) -> None:
    result = CliRunner().invoke(main, ["audit", f"test_net.py:{test}", "net.py:step"])
    assert result.exit_code == 0, result.output
    assert f"{test} catches" in result.output and "said by" not in result.output


def test_command_of_a_bad_test(folder: Path) -> None:
    result = CliRunner().invoke(main, ["audit", "test_net.py:test_bad", "net.py:step", "--input", "x=randn:6,4"])
    assert result.exit_code == 1, result.output
    assert "net.py:11: sign b.g is off by 200 % and the test passes\n  - b.g = out.g.sum(0)" in result.output
    assert "hint: b.g is not compared" in result.output


def test_command_as_json(folder: Path) -> None:
    result = CliRunner().invoke(main, ["audit", "test_net.py:test_bad", "net.py:step", "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 1 and answer["ok"] is False and 0 < answer["share"] < 1
    assert {m["gradient"] for m in answer["survived"]} == {"b.g"} and "not compared" in answer["survived"][0]["hint"]


@pytest.mark.parametrize(
    "test, code, said",
    [
        ("test_net.py", "net.py:step", "does not say which function"),
        ("test_net.py:nothing", "net.py:step", "has no nothing"),
        ("none.py:test", "net.py:step", "there is no file none.py"),
        ("test_net.py:compare", "net.py:step", "compare takes also_b"),
    ],
)
def test_command_misused(folder: Path, test: str, code: str, said: str) -> None:
    result = CliRunner().invoke(main, ["audit", test, code])
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output


def test_the_report_reads() -> None:
    found = cr.audit(only_w, mlp)
    assert isinstance(found, Audit) and repr(found) == f"Audit({str(found.table()).splitlines()[-1]})"
    assert "hint: " in str(found) and f"{Path(__file__).name}:" in str(found)
