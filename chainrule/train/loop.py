"""Mini-batch training with a derived backward pass: no autograd anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from chainrule.train.digits import Digits

# (images, labels) -> (loss, {name: gradient})
Backward = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]


class Momentum:
    """Plain stochastic gradient descent with momentum."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], rate: float, momentum: float = 0.9) -> None:
        self.parameters, self.rate, self.momentum = parameters, rate, momentum
        self.velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def step(self, gradients: Mapping[str, torch.Tensor]) -> None:
        for name, p in self.parameters.items():
            v = self.velocity[name].mul_(self.momentum).add_(gradients[name])
            p.sub_(self.rate * v)


@dataclass(frozen=True)
class Step:
    """What one mini-batch left behind; `accuracy` is measured after the last batch of an epoch."""

    number: int  # from 1
    epoch: int  # from 1
    loss: float
    accuracy: float | None


def train(
    backward: Backward,
    optimiser: Momentum,
    data: Digits,
    accuracy: Callable[[], float],
    epochs: int,
    batch: int = 64,
    seed: int = 0,
) -> Iterator[Step]:
    """Go through `data` in shuffled mini-batches; the last one of an epoch may be smaller."""
    generator = torch.Generator().manual_seed(seed)
    number = 0
    for epoch in range(1, epochs + 1):
        batches = torch.split(torch.randperm(len(data), generator=generator), batch)
        for position, chosen in enumerate(batches, 1):
            with torch.no_grad():
                loss, gradients = backward(data.images[chosen], data.labels[chosen])
                optimiser.step(gradients)
                number += 1
                measured = accuracy() if position == len(batches) else None
            yield Step(number, epoch, float(loss), measured)


def steps_in(data: Digits, epochs: int, batch: int = 64) -> int:
    return epochs * -(-len(data) // batch)
