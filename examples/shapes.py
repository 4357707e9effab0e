"""The same layer in other shapes: what changes in the backward pass is exactly what was broadcast.

A bias as a vector, as a column, as a scalar; a batch of one; a loss that is a mean, a sum, or no
reduction at all.

    python examples/shapes.py
    chainrule derive examples/shapes.py:by_mean
"""

from __future__ import annotations

import torch
from torch import Tensor

import chainrule as cr


def layer(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w + b


def by_mean(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return (layer(x, w, b) - y).square().mean()


def by_sum(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return (layer(x, w, b) - y).square().sum()


def unreduced(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return (layer(x, w, b) - y).square()


def inputs(batch: int = 5, bias: tuple[int, ...] = (3,)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(batch, 4), torch.randn(4, 3), torch.randn(bias), torch.randn(batch, 3)


BIASES = {"vector": (3,), "row": (1, 3), "column": (5, 1), "scalar": ()}


def bias_line(d: cr.Derivation) -> str:
    """The line of the backward pass that sets the gradient of the bias."""
    return next(line for line in d.source().splitlines() if line.startswith("b.g = "))


def main() -> None:
    for name, shape in BIASES.items():
        d = cr.derive(by_mean, *inputs(bias=shape), wrt=["w", "b"])
        print(f"bias as a {name:<7} {shape!s:<7} {bias_line(d):<36} {tuple(d.grads['b'].shape)}")
    d = cr.derive(by_mean, *inputs(batch=1), wrt=["w", "b"])
    print(f"a batch of one: {bias_line(d)}")

    for reduction in (by_mean, by_sum):
        print(f"\n{reduction.__name__}", cr.derive(reduction, *inputs(), wrt=["w", "b"]), sep="\n")
    args = inputs()
    print("\nno reduction: the gradient of the output is given, out_g")
    print(cr.derive(unreduced, *args, wrt=["w", "b"], upstream=torch.ones_like(args[3])))


if __name__ == "__main__":
    main()
