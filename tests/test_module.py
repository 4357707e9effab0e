"""Layers: cr.Module with and without `bwd`, plain classes, autograd.Function, each held against autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import chainrule as cr


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 7 * sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Lin(cr.Module):
    def __init__(self, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b

    def forward(self, inp: Tensor) -> Tensor:
        return inp @ self.w + self.b


class HandLin(Lin):
    def bwd(self, out: Tensor, inp: Tensor) -> None:
        inp.g = out.g @ self.w.T
        self.w.g = inp.T @ out.g
        self.b.g = out.g.sum(0)


class Relu(cr.Module):
    def forward(self, inp: Tensor) -> Tensor:
        return inp.clamp_min(0.0)


class Mse(cr.Module):
    def forward(self, inp: Tensor, targ: Tensor) -> Tensor:
        return (inp - targ).pow(2).mean()


class Chain(cr.Module):
    """A chain of layers that runs their `backward` in reverse."""

    def __init__(self, *layers: cr.Module) -> None:
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def bwd(self, out: Tensor, x: Tensor) -> None:
        for layer in reversed(self.layers):
            layer.backward()


class Nested(cr.Module):
    """Modules inside, and no backward pass of its own: derived through all of them."""

    def __init__(self, *layers: cr.Module) -> None:
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def layers(lin: type[Lin] = Lin) -> list[cr.Module]:
    return [lin(rand(4, 6), rand(6)), Relu(), lin(rand(6, 2), rand(2))]


def of_autograd(run: Any, *tensors: Tensor) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    run(*leaves).backward()
    return [leaf.grad for leaf in leaves]


def assert_like_autograd(model: cr.Module, lins: list[Lin], x: Tensor, y: Tensor) -> None:
    loss = Mse()
    assert loss(model(x), y).ndim == 0
    loss.backward()
    model.backward()
    first, last = lins

    def forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        return ((x @ w1 + b1).clamp_min(0.0) @ w2 + b2 - y).pow(2).mean()

    tensors = [x, first.w, first.b, last.w, last.b]
    for tensor, truth in zip(tensors, of_autograd(forward, *tensors), strict=True):
        torch.testing.assert_close(tensor.g, truth)


@pytest.mark.parametrize("lin", [Lin, HandLin])
@pytest.mark.parametrize("model", [Chain, Nested])
def test_a_chain_is_like_autograd(model: type, lin: type[Lin]) -> None:
    parts = layers(lin)
    assert_like_autograd(model(*parts), [parts[0], parts[2]], rand(5, 4), rand(5, 2))


def test_chains_in_chains() -> None:
    a, relu, b = layers()
    assert_like_autograd(Chain(Nested(a, relu), Chain(b)), [a, b], rand(5, 4), rand(5, 2))


def test_a_layer_keeps_its_arguments_and_output() -> None:
    lin, x = Lin(rand(4, 2), rand(2)), rand(3, 4)
    out = lin(x)
    assert lin.out is out and lin.args[0] is x
    torch.testing.assert_close(out, x @ lin.w + lin.b)


def test_the_derived_backward_reads_like_the_hand_written_one() -> None:
    lin, x = Lin(rand(4, 2), rand(2)), rand(3, 4)
    out = lin(x)
    out.g = rand(3, 2, seed=5)
    lin.backward()
    source = lin.derived.source()
    for line in ("inp.g = out_g @ w.T", "w.g = inp.T @ out_g", "b.g = out_g.sum(0)"):
        assert line in source
    torch.testing.assert_close(lin.w.g, x.T @ out.g)


def test_only_inputs_and_the_layers_own_tensors_get_a_gradient() -> None:
    class Hidden(Lin):
        def forward(self, inp: Tensor) -> Tensor:
            self.inside = inp @ self.w
            return self.inside.tanh() + self.b

    layer = Hidden(rand(4, 2), rand(2))
    out = layer(rand(3, 4))
    out.g = torch.ones_like(out)
    layer.backward()
    assert hasattr(layer.w, "g") and not hasattr(layer.inside, "g")


def test_a_second_call_starts_afresh() -> None:
    lin = Lin(rand(4, 2), rand(2))
    for seed in (1, 2):
        x = rand(3, 4, seed=seed)
        out = lin(x)
        out.g = torch.ones_like(out)
        lin.backward()
        torch.testing.assert_close(lin.w.g, x.T @ out.g)


def test_what_is_called_out_of_order_says_so() -> None:
    lin = Lin(rand(4, 2), rand(2))
    with pytest.raises(cr.ChainruleError, match=r"Lin\.backward was called before"):
        lin.backward()
    lin(rand(3, 4))
    with pytest.raises(cr.ChainruleError, match=r"output of Lin \(3, 2\) has no \.g yet"):
        lin.backward()
    with pytest.raises(cr.ChainruleError, match="Empty has no forward"):
        type("Empty", (cr.Module,), {})()(rand(3))


# -- check -------------------------------------------------------------------------------------------


class WrongLin(HandLin):
    def bwd(self, out: Tensor, inp: Tensor) -> None:
        inp.g = out.g @ self.w.T
        self.w.g = inp.T @ out.g
        self.b.g = out.g.mean(0)


class Model:
    """A plain class; `Mse` inside makes its output the loss."""

    def __init__(self, first: Lin, last: Lin) -> None:
        self.first, self.relu, self.last, self.mse = first, Relu(), last, Mse()

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.mse(self.last(self.relu(self.first(x))), y)

    def backward(self) -> None:
        for layer in (self.mse, self.last, self.relu, self.first):
            layer.backward()


@pytest.mark.parametrize("lin", [Lin, HandLin])
def test_check_of_a_class_that_is_right(lin: type[Lin]) -> None:
    first, _, last = layers(lin)
    r = cr.check(Model(first, last), rand(5, 4), rand(5, 2))
    assert r.ok and not r.findings, str(r)
    assert sum("w" in row.name for row in r.rows) == 2


def test_check_of_a_class_that_is_wrong() -> None:
    first, last = WrongLin(rand(4, 6), rand(6)), HandLin(rand(6, 2), rand(2))
    r = cr.check(Model(first, last), rand(5, 4), rand(5, 2))
    (finding,) = r.findings
    assert (finding.name.endswith("b") and "first" in finding.name) or finding.name == "b", str(r)
    assert finding.line == WrongLin.bwd.__code__.co_firstlineno + 3


@pytest.mark.parametrize(("lin", "found"), [(HandLin, []), (Lin, []), (WrongLin, ["b"])])
def test_check_of_one_layer_without_a_loss(lin: type[Lin], found: list[str]) -> None:
    r = cr.check(lin(rand(4, 6), rand(6)), rand(5, 4))
    assert [f.name for f in r.findings] == found, str(r)
    assert {row.name for row in r.rows} == {"inp", "w", "b"}


class Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return g * out


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, power: int) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.power = power
        return x**power * w

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        return g * w * ctx.power * x ** (ctx.power - 1), (g * x**ctx.power).sum(0), None


class WrongScaled(Scaled):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        return g * w * x ** (ctx.power - 1), (g * x**ctx.power).sum(0), None


class NoneForW(Scaled):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        return g * w * ctx.power * x ** (ctx.power - 1), None, None


@pytest.mark.parametrize(
    ("function", "found"), [(Scaled, []), (WrongScaled, ["WrongScaled.x"]), (NoneForW, ["NoneForW.w"])]
)
def test_check_of_an_autograd_function(function: Any, found: list[str]) -> None:
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return Exp.apply(function.apply(x, w, 3) / 4).sum()

    r = cr.check(forward, rand(5, 3), rand(3))
    assert [f.name for f in r.findings] == found, str(r)
    assert r.ok is (not found)
    assert {row.name for row in r.rows} == {"Exp.x", f"{function.__name__}.x", f"{function.__name__}.w"}
    if found:
        assert r.findings[0].line is not None
        expected = "missing-gradient" if function is NoneForW else "wrong-scale"
        assert r.findings[0].cause == expected and r.findings[0].proved and "ctx.power" in r.findings[0].repair


def test_check_of_an_autograd_function_inside_a_module() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(3, 3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return Exp.apply(self.lin(x))

    r = cr.check(Net(), rand(5, 3))
    assert r.ok and [row.name for row in r.rows] == ["Exp.x"], str(r)
