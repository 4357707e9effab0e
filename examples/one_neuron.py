"""One neuron with relu and mean squared error, written the way a notebook cell is.

The parameters are globals, the functions return nothing, and each gradient stays on its tensor as `.g`.
The gradient of the weights is written twice: as a matrix product, and as the sum over the batch of
one outer product a row. They are the same numbers, and both are right.

    python examples/one_neuron.py
    chainrule check examples/one_neuron.py:by_product
"""

from __future__ import annotations

import torch
from torch import Tensor

import chainrule as cr

torch.manual_seed(1)
w = torch.randn(3, 1)
b = torch.zeros(1)


def by_product(inp: Tensor, targ: Tensor) -> None:
    # forward
    pre = inp @ w + b
    out = pre.clamp_min(0.0)
    diff = out[:, 0] - targ
    loss = diff.pow(2).mean()  # noqa: F841
    # backward
    out.g = 2 * diff[:, None] / inp.shape[0]
    pre.g = (pre > 0).float() * out.g
    inp.g = pre.g @ w.T
    w.g = inp.T @ pre.g
    b.g = pre.g.sum(0)


def relu(x: Tensor) -> Tensor:
    return x.clamp_min(0.0)


def lin(inp: Tensor) -> Tensor:
    return inp @ w + b


def mse(out: Tensor, targ: Tensor) -> Tensor:
    return (out.squeeze(-1) - targ).pow(2).mean()


def mse_grad(out: Tensor, targ: Tensor) -> None:
    out.g = 2 * (out.squeeze(-1) - targ).unsqueeze(-1) / targ.shape[0]


def relu_grad(inp: Tensor, out: Tensor) -> None:
    inp.g = (inp > 0).float() * out.g


def lin_grad(inp: Tensor, out: Tensor) -> None:
    inp.g = out.g @ w.t()
    w.g = (inp.unsqueeze(-1) * out.g.unsqueeze(1)).sum(0)  # (64, 3, 1) * (64, 1, 1), summed over the batch
    b.g = out.g.sum(0)


def by_outer_products(inp: Tensor, targ: Tensor) -> None:
    pre = lin(inp)
    out = relu(pre)
    loss = mse(out, targ)  # noqa: F841
    mse_grad(out, targ)
    relu_grad(pre, out)
    lin_grad(inp, pre)


def forward(inp: Tensor, targ: Tensor) -> Tensor:
    return mse(relu(lin(inp)), targ)


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    inp = torch.randn(64, 3)
    return inp, relu(inp @ torch.tensor([1.0, -2.0, 0.5]) + 0.3)


def main() -> None:
    for way in (by_product, by_outer_products):
        print(f"{way.__name__}\n{cr.check(way, *inputs())}\n")


if __name__ == "__main__":
    main()
