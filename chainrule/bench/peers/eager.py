"""PyTorch as it is written, with its own SGD."""

from __future__ import annotations

import torch

from chainrule.bench.contender import OnTensors
from chainrule.bench.works import Setup, Work


class Eager(OnTensors):
    """Forward, `loss.backward()`, `optimizer.step()`; the gradients are given back after each step."""

    def __init__(self, work: Work, setup: Setup, **how: bool) -> None:
        super().__init__(setup)
        self.forward = setup.forward
        self.optimizer = torch.optim.SGD(list(setup.params.values()), lr=work.lr, **how)

    def step(self) -> torch.Tensor:
        loss = self.forward(*self.setup.batch)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss
