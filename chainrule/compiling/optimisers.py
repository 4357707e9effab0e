"""How parameters move: each optimiser says its formula once, and which kernel of torch's does the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from chainrule.errors import ChainruleError

Schedule = float | Callable[[int], float]


@dataclass(kw_only=True)
class Optimiser(ABC):
    """What all optimisers share.

    `lr` is a number, or a function of the number of steps taken so far; it may be set anew at any time without
    compiling again. `clip_norm` scales all gradients so that their common norm is at most this.
    """

    lr: Schedule
    clip_norm: float | None = None
    steps: int = field(default=0, init=False)  # taken so far
    taken: bool = field(default=False, init=False, repr=False)  # by a step, which is compiled for its settings

    state_names: ClassVar[tuple[str, ...]] = ()
    number_names: ClassVar[tuple[str, ...]] = ("lr",)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not value >= 0:
                raise ChainruleError(f"{type(self).__name__} was given {name}={value}; it is at least 0")
        if self.clip_norm == 0:
            raise ChainruleError(
                f"{type(self).__name__} was given clip_norm=0, which moves nothing; None clips nothing"
            )
        self._rate(self.lr(0) if callable(self.lr) else self.lr)

    def _rate(self, lr: Any) -> float:
        """A learning rate as a number. Raises ChainruleError where it is none."""
        if not isinstance(lr, int | float) or not lr >= 0:
            what = "a schedule that gave " if callable(self.lr) else "lr="
            raise ChainruleError(
                f"{type(self).__name__} was given {what}{lr!r}; a learning rate is a number, at least 0"
            )
        return float(lr)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "taken", False) and name not in ("lr", "steps", "taken", "seen"):
            raise ChainruleError(
                f"{name} of {type(self).__name__} was set after a step was compiled with it; lr alone may change, so "
                "compile the step again"
            )
        object.__setattr__(self, name, value)

    @property
    def lr_now(self) -> float:
        """The learning rate of the next step."""
        return self._rate(self.lr(self.steps)) if callable(self.lr) else self.lr

    def numbers(self) -> tuple[float, ...]:
        """What changes from step to step, in the order of `number_names`."""
        return (self.lr_now,)

    def clipped(self, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The gradients, scaled so that the norm of all of them is at most `clip_norm`."""
        if self.clip_norm is None:
            return list(gradients)
        norm = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm()
        share = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        return [g * share for g in gradients]

    @abstractmethod
    def moved(
        self, p: torch.Tensor, g: torch.Tensor, state: Sequence[torch.Tensor], numbers: Sequence[torch.Tensor | float]
    ) -> tuple[torch.Tensor, ...]:
        """The new value of a parameter and of its state, from its gradient."""

    @abstractmethod
    def gradient_of(self, before: torch.Tensor, after: torch.Tensor, state: Sequence[torch.Tensor]) -> torch.Tensor:
        """The gradient by which a parameter moved in a first step with lr = 1, from what the step left."""


@dataclass(kw_only=True)
class SGD(Optimiser):
    """Gradient descent, with momentum and weight decay as `torch.optim.SGD` has them.

    >>> sgd = SGD(lr=lambda step: 0.1 / (1 + step))
    >>> sgd.lr_now
    0.1
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise ChainruleError("SGD was given nesterov=True without momentum; give one, such as momentum=0.9")

    @property
    def state_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("momentum",) if self.momentum else ()

    def moved(
        self, p: torch.Tensor, g: torch.Tensor, state: Sequence[torch.Tensor], numbers: Sequence[torch.Tensor | float]
    ) -> tuple[torch.Tensor, ...]:
        (lr,) = numbers
        if self.weight_decay:
            g = g + self.weight_decay * p
        if not self.momentum:
            return (p - lr * g,)
        velocity = self.momentum * state[0] + g
        return p - lr * (g + self.momentum * velocity if self.nesterov else velocity), velocity

    def gradient_of(self, before: torch.Tensor, after: torch.Tensor, state: Sequence[torch.Tensor]) -> torch.Tensor:
        moved = before - after.detach()
        return moved / (1 + self.momentum if self.nesterov else 1) - self.weight_decay * before


@dataclass(kw_only=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba, 2015), as `torch.optim.Adam` has it.

    >>> Adam(lr=1e-3).numbers()[0]
    0.001
    """

    lr: Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    state_names: ClassVar[tuple[str, ...]] = ("mean", "square")
    number_names: ClassVar[tuple[str, ...]] = ("lr", "mean_share", "square_share")
    decoupled: ClassVar[bool] = False  # whether weight decay is apart from the gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ChainruleError(f"{type(self).__name__} was given betas={self.betas}; both are at least 0 and below 1")

    def numbers(self) -> tuple[float, ...]:
        """The learning rate, and how much of the mean and of the mean square has been seen (1 - beta^t)."""
        first, second = self.betas
        return self.lr_now, 1 - first ** (self.steps + 1), 1 - second ** (self.steps + 1)

    def moved(
        self, p: torch.Tensor, g: torch.Tensor, state: Sequence[torch.Tensor], numbers: Sequence[torch.Tensor | float]
    ) -> tuple[torch.Tensor, ...]:
        lr, mean_share, square_share = numbers
        first, second = self.betas
        if self.decoupled:
            p = p - lr * self.weight_decay * p
        elif self.weight_decay:
            g = g + self.weight_decay * p
        mean = first * state[0] + (1 - first) * g
        square = second * state[1] + (1 - second) * g * g
        return p - lr * (mean / mean_share) / ((square / square_share).sqrt() + self.eps), mean, square

    def gradient_of(self, before: torch.Tensor, after: torch.Tensor, state: Sequence[torch.Tensor]) -> torch.Tensor:
        """From the mean, since a move has lost how large the gradient was; NaN where the move is not by that mean."""
        gradient = state[0] / (1 - self.betas[0])
        fresh = [torch.zeros_like(m) for m in state]
        numbers = 1.0, 1 - self.betas[0], 1 - self.betas[1]
        inner = gradient - (0 if self.decoupled else self.weight_decay) * before
        expected = self.moved(before, inner, fresh, numbers)
        wrong = ~torch.isclose(expected[0], after.detach(), rtol=1e-2, atol=1e-2)
        return inner.masked_fill(wrong & (inner.abs() > 1e-6), float("inf"))


@dataclass(kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as `torch.optim.AdamW` has it.

    >>> AdamW(lr=1e-3).weight_decay
    0.01
    """

    weight_decay: float = 0.01
    decoupled: ClassVar[bool] = True


@dataclass(kw_only=True)
class Gathering(Optimiser):
    """Moves nothing, but adds a share of each gradient to a sum, by which `optimiser`, if there is one, moves at every
    k-th call."""

    lr: Schedule = 0.0
    optimiser: Optimiser | None = None
    every: int
    seen: int = field(default=0, init=False)

    state_names: ClassVar[tuple[str, ...]] = ("sum",)
    number_names: ClassVar[tuple[str, ...]] = ()

    def numbers(self) -> tuple[float, ...]:
        return ()

    @property
    def share(self) -> float:
        """What a gradient of one call counts in their mean."""
        return 1 / self.every

    def moved(
        self, p: torch.Tensor, g: torch.Tensor, state: Sequence[torch.Tensor], numbers: Sequence[torch.Tensor | float]
    ) -> tuple[torch.Tensor, ...]:
        return p, state[0] + self.share * g

    def gradient_of(self, before: torch.Tensor, after: torch.Tensor, state: Sequence[torch.Tensor]) -> torch.Tensor:
        return state[0] / self.share

    def count(
        self, params: Sequence[torch.Tensor], sums: Sequence[torch.Tensor], moments: Sequence[Sequence[torch.Tensor]]
    ) -> None:
        """Note that a call is over; after the k-th, move the parameters and begin again."""
        self.seen += 1
        if self.seen < self.every or self.optimiser is None:
            return
        numbers = self.optimiser.numbers()
        with torch.no_grad():
            for p, g, own in zip(params, self.optimiser.clipped(sums), moments):
                for tensor, value in zip((p, *own), self.optimiser.moved(p, g, own, numbers)):
                    tensor.copy_(value)
            for total in sums:
                total.zero_()
        self.seen = 0
        self.optimiser.steps += 1
