"""torch's own layers keep weights as (out, in); names are those of `named_parameters()`.

nn.Linear, nn.Sequential and a module of one's own, each compared with what autograd leaves in `.grad`.

    python examples/torch_layout.py
    chainrule derive examples/torch_layout.py:forward
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import chainrule as cr

torch.manual_seed(0)
single = nn.Linear(4, 3)
stack = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class Residual(nn.Module):
    """A module written by hand: its weight is stored (out, in) too, so forward multiplies by its transpose."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(size, hidden)
        self.weight = nn.Parameter(0.5 * torch.randn(size, hidden))
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.up(x))
        return self.scale * x + hidden @ self.weight.T


residual = Residual(4, 6)
MODELS: dict[str, nn.Module] = {"single": single, "stack": stack, "residual": residual}


def forward(x: Tensor, model: nn.Module = stack) -> Tensor:
    return model(x).square().mean()


def inputs() -> tuple[Tensor]:
    return (torch.randn(10, 4, generator=torch.Generator().manual_seed(1)),)


class Loss(nn.Module):
    """Model and loss as one module, so that `d.grads` carries the names of `model.named_parameters()`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).square().mean()


def differences(model: nn.Module, x: Tensor) -> dict[str, float]:
    """For each parameter the largest difference between the derived gradient and autograd's."""
    d = cr.derive(model, x, upstream=torch.ones_like(model(x)))
    model.zero_grad()
    model(x).sum().backward()
    return {name: float((d.grads[name] - p.grad).abs().max()) for name, p in model.named_parameters()}


def main() -> None:
    (x,) = inputs()
    for name, model in MODELS.items():
        print(f"{name}: derived minus autograd", differences(model, x))
    print("\nthe backward pass of a linear layer, weight (out, in), given out_g:")
    print(cr.derive(single, x, upstream=torch.ones(10, 3)))
    print("\nand of the stack inside a loss:")
    print(cr.derive(Loss(stack), x))


if __name__ == "__main__":
    main()
