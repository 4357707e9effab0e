"""Whether a contender computes the same step: after equal steps, equal losses and parameters, as autograd in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from chainrule.bench.works import Setup, Work

STEPS = 3
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Truth:
    """What autograd in float64 makes of `STEPS` steps: the loss before each, the parameters before and after."""

    losses: list[float]
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]

    def apart(self, losses: list[float], after: dict[str, torch.Tensor]) -> tuple[float, str]:
        """How far a contender is off, and where it is furthest: a fraction of the loss, or of a parameter's update.

        What float32 cannot say of a parameter, its rounding once a step, is not counted.
        """
        off = [(abs(x - y) / abs(y), f"the loss of step {i + 1}") for i, (x, y) in enumerate(zip(losses, self.losses))]
        for name, right in self.after.items():
            rounding = STEPS * torch.finfo(torch.float32).eps * right.norm().item()
            error = (after[name].double() - right).norm().item() - rounding
            update = (right - self.before[name]).norm().item()
            off.append((max(error, 0.0) / update if update else float(error > 0), f"the update of {name}"))
        return max(off, key=lambda pair: _rank(pair[0]))


def truth(work: Work, setup: Setup) -> Truth:
    """Autograd's steps in float64; they are taken on the tensors of `setup`."""
    batch = [_double(t) for t in setup.batch]
    for p in setup.params.values():
        p.data = p.data.double()
    params = list(setup.params.values())
    before = {name: p.detach().clone() for name, p in setup.params.items()}
    losses = []
    for _ in range(STEPS):
        loss = setup.forward(*batch)
        grads = torch.autograd.grad(loss, params)
        losses.append(loss.item())
        with torch.no_grad():
            for p, g in zip(params, grads):
                p.sub_(g, alpha=work.lr)
    return Truth(losses, before, {name: p.detach() for name, p in setup.params.items()})


def _double(tensor: Any) -> Any:
    return tensor.double() if tensor.is_floating_point() else tensor


def _rank(value: float) -> float:
    """For a maximum in which NaN is the furthest of all."""
    return float("inf") if value != value else value
