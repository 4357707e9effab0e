"""A compiled step beside autograd and torch.optim: the same network twice, and what both make of the same batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr

Network = tuple[Callable[..., Tensor], list[Tensor]]
Batch = tuple[Any, ...]


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def perceptron(dtype: torch.dtype = torch.float64) -> Network:
    """Two layers for batches (n, 4) with classes below 3; w is used twice, and h has a bias."""
    w, h, b, out = params = tensors((4, 4), (4, 6), (6,), (6, 3), dtype=dtype)

    def forward(x: Tensor, y: Tensor) -> Tensor:
        hidden = torch.tanh(torch.tanh(x @ w) @ w) @ h + b
        return F.cross_entropy(torch.relu(hidden) @ out, y)

    return forward, params


def classified(*sizes: int, dtype: torch.dtype = torch.float64) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(n, 4, dtype=dtype, generator=generator), torch.randint(0, 3, (n,), generator=generator))
        for n in sizes
    ]


def of_module(make: Callable[[], nn.Module], loss: Callable[..., Tensor]) -> Callable[[], Network]:
    """A network whose forward pass is `loss(model(x), *rest)`."""

    def network() -> Network:
        model = make().double()
        return (lambda x, *rest: loss(model(x), *rest)), list(model.parameters())

    return network


def made(network: Callable[[], Network], seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return network()


def by_torch(
    network: Callable[[], Network],
    batches: Sequence[Batch],
    optimiser: Callable[[list[Tensor]], torch.optim.Optimizer],
    clip: float | None = None,
    every: int = 1,
    before: Callable[[int, torch.optim.Optimizer], None] = lambda k, optimiser: None,
) -> tuple[list[Tensor], list[Tensor]]:
    """The losses, and the parameters after them. `before(k, optimiser)` is called before step k."""
    forward, params = made(network)
    moving, losses, steps = optimiser(params), [], 0
    torch.manual_seed(1)
    for k, batch in enumerate(batches):
        loss = forward(*batch)
        (loss / every).backward()
        losses.append(loss.detach())
        if (k + 1) % every == 0:
            if clip is not None:
                nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], clip)
            before(steps, moving)
            moving.step()
            moving.zero_grad()
            steps += 1
    return losses, params


def by_step(
    network: Callable[[], Network], batches: Sequence[Batch], optimizer: Any, **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    forward, params = made(network)
    step = cr.compile(forward, *batches[0], optimizer=optimizer, **options)
    assert step.plan().engine == options.get("engine", "torch")
    torch.manual_seed(1)
    return [step(*batch) for batch in batches], params


def assert_same(ours: tuple[list[Tensor], list[Tensor]], theirs: tuple[list[Tensor], list[Tensor]]) -> None:
    """Losses and parameters agree to a few roundings."""
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        rough = a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-4 if rough else 1e-9, atol=1e-5 if rough else 1e-11)
