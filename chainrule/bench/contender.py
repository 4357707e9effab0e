"""What is measured: anything that takes the training step of a work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from chainrule.bench import memory
from chainrule.bench.works import Setup, Work

OURS = "chainrule"
EAGER = "eager"


class Unable(Exception):
    """A contender cannot take the step of this work, here; the message is the reason."""


class Contender(ABC):
    """A step of a work that was made ready: forward, backward, and plain gradient descent with the work's rate."""

    @abstractmethod
    def step(self) -> Any:
        """Take one step on the batch; the loss before it, of the library's own type, perhaps still under way."""

    def wait(self) -> None:
        """Return when every step that was asked for is done."""
        return None

    @abstractmethod
    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters as they are now, named and laid out as those of the work's setup."""

    def memory(self) -> int | None:
        """Bytes held at the peak of a step beyond parameters and batch; None where that cannot be measured."""
        return None


class OnTensors(Contender):
    """A step of torch, on the parameters of the setup themselves."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in self.setup.params.items()}

    def memory(self) -> int | None:
        return memory.of_tensors(self.step)


@dataclass(frozen=True)
class Recipe:
    """How to make a contender for any work. The variants of one library are a family."""

    name: str
    family: str
    make: Callable[[Work, Setup], Contender]

    @property
    def ours(self) -> bool:
        return self.family == OURS


def fresh(work: Work, batch: tuple[torch.Tensor, ...] | None = None) -> Setup:
    """The work with parameters that are the same each time; on `batch`, so that contenders share one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        setup = work.make()
    return setup if batch is None else replace(setup, batch=batch)
