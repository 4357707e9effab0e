"""Six rows of zeros and ones, weights picked by hand: every number of one learning step, by its name.

Small enough to follow with a pencil. Two hidden neurons with relu, one output, mean squared error.

    python examples/six_rows.py
    chainrule trace examples/six_rows.py:forward
"""

from __future__ import annotations

import torch
from torch import Tensor

import chainrule as cr

rows = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1], [1, 1, 0]]).float()
targ = torch.tensor([[0], [1], [1], [1], [1], [0]]).float()


def weights() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    w1 = torch.tensor([[1.0, -0.5], [-0.5, 1.0], [0.25, 0.5]])
    b1 = torch.tensor([0.1, 0.2])
    w2 = torch.tensor([[0.5], [-0.25]])
    b2 = torch.tensor([0.1])
    return w1, b1, w2, b2


def forward(inp: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, targ: Tensor) -> Tensor:
    hidden = torch.relu(inp @ w1 + b1)
    out = hidden @ w2 + b2
    diff = out - targ
    loss = (diff**2).mean()
    return loss


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return rows, *weights(), targ


def derived(parameters: dict[str, Tensor]) -> cr.Derivation:
    return cr.derive(forward, rows, **parameters, targ=targ, wrt=list(parameters))


def apply(d: cr.Derivation, parameters: dict[str, Tensor], rate: float = 0.5) -> dict[str, Tensor]:
    """The parameters after one step down their gradients."""
    return {name: parameter - rate * d.grads[name] for name, parameter in parameters.items()}


def main() -> None:
    before = dict(zip(("w1", "b1", "w2", "b2"), weights(), strict=True))
    first = derived(before)
    print(first.trace())

    after = apply(first, before)
    print("\nafter one step at rate 0.5:")
    for name, parameter in after.items():
        print(f"{name} =\n{parameter}")

    second = derived(after)
    print("\nthe same rows once more, outputs before and after, and what they should be:")
    print(torch.cat([first["out"].value, second["out"].value, targ], dim=1))
    print(f"loss {first.output:.4f} -> {second.output:.4f}")


if __name__ == "__main__":
    main()
