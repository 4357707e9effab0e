"""A rule of one's own: rounding has slope zero almost everywhere, so nothing could be learned through it.

The straight-through estimator rounds on the way forward and looks away on the way back. What happens
inside a function that has a rule is left to the rule. `cr.testing.assert_rule` holds a rule to what the
book's own are held to; this one fails there, and is meant to.

    python examples/own_rule.py
"""

from __future__ import annotations

import torch
from torch import Tensor

import chainrule as cr


def quantized(x: Tensor, levels: int = 8) -> Tensor:
    return (x * levels).round() / levels


@cr.rule(quantized)
def straight_through(out: Tensor, x: Tensor, levels: int = 8) -> None:
    x.g = out.g


def forward(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    w_q = quantized(w)
    return (x @ w_q - y).square().mean()


TRUTH = torch.tensor([0.5, -1.0, 0.25])


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    return x, torch.zeros(3), x @ TRUTH


def learn(steps: int = 40, rate: float = 0.1) -> tuple[Tensor, list[float]]:
    x, w, y = inputs()
    losses = []
    for _ in range(steps):
        d = cr.derive(forward, x, w, y, wrt="w")
        losses.append(d.output.item())
        w = w - rate * d.grads["w"]
    return quantized(w), losses


def main() -> None:
    print(cr.derive(forward, *inputs(), wrt="w"))
    w_q, losses = learn()
    print(f"\nloss {losses[0]:.3f} -> {losses[-1]:.3f}; quantized weights {w_q.tolist()}, truth {TRUTH.tolist()}")
    try:
        cr.testing.assert_rule(quantized, ["r(3)"])
    except AssertionError as difference:
        print(f"\nno derivative, on purpose: {difference}")


if __name__ == "__main__":
    main()
