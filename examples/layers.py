"""Layers as classes: each keeps what its backward pass needs, and the model runs them in reverse.

First as plain Python classes, then on `cr.Module`, which keeps the arguments and the output for you,
and finally with no backward pass written at all: it is derived from `forward`.

    python examples/layers.py
"""

from __future__ import annotations

import torch
from torch import Tensor

import chainrule as cr

# -- plain classes -----------------------------------------------------------------------------------


class Relu:
    def __call__(self, inp: Tensor) -> Tensor:
        self.inp = inp
        self.out = inp.clamp_min(0.0)
        return self.out

    def backward(self) -> None:
        self.inp.g = (self.inp > 0).float() * self.out.g


class Lin:
    def __init__(self, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b

    def __call__(self, inp: Tensor) -> Tensor:
        self.inp = inp
        self.out = inp @ self.w + self.b
        return self.out

    def backward(self) -> None:
        self.inp.g = self.out.g @ self.w.t()
        self.w.g = self.inp.t() @ self.out.g
        self.b.g = self.out.g.sum(0)


class Mse:
    def __call__(self, inp: Tensor, targ: Tensor) -> Tensor:
        self.inp, self.targ = inp, targ
        self.out = (inp.squeeze(-1) - targ).pow(2).mean()
        return self.out

    def backward(self) -> None:
        self.inp.g = 2.0 * (self.inp.squeeze(-1) - self.targ).unsqueeze(-1) / self.targ.shape[0]


# -- the same on cr.Module ---------------------------------------------------------------------------


class ReluModule(cr.Module):
    def forward(self, inp: Tensor) -> Tensor:
        return inp.clamp_min(0.0)

    def bwd(self, out: Tensor, inp: Tensor) -> None:
        inp.g = (inp > 0).float() * out.g


class LinModule(cr.Module):
    def __init__(self, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b

    def forward(self, inp: Tensor) -> Tensor:
        return inp @ self.w + self.b

    def bwd(self, out: Tensor, inp: Tensor) -> None:
        inp.g = out.g @ self.w.t()
        self.w.g = inp.t() @ out.g
        self.b.g = out.g.sum(0)


class MseModule(cr.Module):
    def forward(self, inp: Tensor, targ: Tensor) -> Tensor:
        return (inp.squeeze(-1) - targ).pow(2).mean()

    def bwd(self, out: Tensor, inp: Tensor, targ: Tensor) -> None:
        inp.g = 2.0 * (inp.squeeze(-1) - targ).unsqueeze(-1) / targ.shape[0]


# -- and with no backward pass at all ----------------------------------------------------------------


class DerivedLin(cr.Module):
    def __init__(self, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b

    def forward(self, inp: Tensor) -> Tensor:
        return inp @ self.w + self.b


class DerivedRelu(cr.Module):
    def forward(self, inp: Tensor) -> Tensor:
        return inp.clamp_min(0.0)


class DerivedMse(cr.Module):
    def forward(self, inp: Tensor, targ: Tensor) -> Tensor:
        return (inp.squeeze(-1) - targ).pow(2).mean()


# -- the model, the same for all three ---------------------------------------------------------------


class Model:
    def __init__(self, lin: type, relu: type, mse: type, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.w1, self.b1 = torch.randn(5, 8), torch.zeros(8)
        self.w2, self.b2 = torch.randn(8, 1), torch.zeros(1)
        self.layers = [lin(self.w1, self.b1), relu(), lin(self.w2, self.b2)]
        self.loss = mse()

    def __call__(self, x: Tensor, targ: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.loss(x, targ)

    def backward(self) -> None:
        self.loss.backward()
        for layer in reversed(self.layers):
            layer.backward()


def plain() -> Model:
    return Model(Lin, Relu, Mse)


def modules() -> Model:
    return Model(LinModule, ReluModule, MseModule)


def derived() -> Model:
    return Model(DerivedLin, DerivedRelu, DerivedMse)


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(16, 5), torch.randn(16)


def main() -> None:
    for make in (plain, modules, derived):
        print(f"{make.__name__}\n{cr.check(make(), *inputs())}\n")
    model = derived()
    model(*inputs())
    model.backward()
    print("the backward pass of the last linear layer, which nobody wrote:")
    print(model.layers[-1].derived)


if __name__ == "__main__":
    main()
