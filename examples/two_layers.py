"""A network of two layers whose backward pass is written by hand, and then derived.

The parameters are globals; `forward_and_backward` returns nothing, and its loss is a local variable.

    python examples/two_layers.py
    chainrule check examples/two_layers.py:forward_and_backward
    chainrule derive examples/two_layers.py:forward
"""

from __future__ import annotations

import torch
from torch import Tensor

import chainrule as cr

torch.manual_seed(0)
n, features, hidden = 128, 10, 20
w1, b1 = torch.randn(features, hidden), torch.zeros(hidden)
w2, b2 = torch.randn(hidden, 1), torch.zeros(1)


def relu(x: Tensor) -> Tensor:
    return x.clamp_min(0.0)


def lin(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w + b


def lin_grad(inp: Tensor, out: Tensor, w: Tensor, b: Tensor) -> None:
    inp.g = out.g @ w.t()
    w.g = inp.t() @ out.g
    b.g = out.g.sum(0)


def forward_and_backward(inp: Tensor, targ: Tensor) -> None:
    # forward
    l1 = lin(inp, w1, b1)
    l2 = relu(l1)
    out = lin(l2, w2, b2)
    diff = out[:, 0] - targ
    loss = diff.pow(2).mean()  # noqa: F841
    # backward
    out.g = 2.0 * diff[:, None] / inp.shape[0]
    lin_grad(l2, out, w2, b2)
    l1.g = (l1 > 0).float() * l2.g
    lin_grad(inp, l1, w1, b1)


def forward(inp: Tensor, targ: Tensor) -> Tensor:
    l1 = lin(inp, w1, b1)
    l2 = relu(l1)
    out = lin(l2, w2, b2)
    diff = out[:, 0] - targ
    return diff.pow(2).mean()


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, features), torch.randn(n)


def main() -> None:
    print("by hand:", cr.check(forward_and_backward, *inputs()), sep="\n")
    d = cr.derive(forward, *inputs())
    print("\nderived:", d, sep="\n")


if __name__ == "__main__":
    main()
