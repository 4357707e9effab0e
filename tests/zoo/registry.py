"""How a function joins the menagerie, and the makers of its example inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

SEED = 7  # of the random numbers that a function of the menagerie draws
ENTRIES: list[Entry] = []


@dataclass(frozen=True)
class Entry:
    """One function of the menagerie.

    `make(n)` gives its arguments at batch size n. `smooth` says that central differences see the same
    slope as autograd. `batches` are the sizes, besides the one it is derived at, that its emitted code
    must take; `pattern` is the reason why the code may refuse them with an assertion instead.
    """

    name: str
    function: Callable[..., Any]
    make: Callable[[int], tuple[Any, ...]]
    smooth: bool = True
    batches: tuple[int, ...] = (3, 1)
    pattern: str = ""

    def arguments(self, n: int = 5) -> tuple[Any, ...]:
        torch.manual_seed(n)
        return self.make(n)

    def __call__(self, *args: Any) -> torch.Tensor:
        """Run it with the random numbers that every run of it has."""
        torch.manual_seed(SEED)
        output: torch.Tensor = self.function(*args)
        return output


def zoo(
    make: Callable[[int], tuple[Any, ...]],
    *,
    name: str = "",
    smooth: bool = True,
    batches: tuple[int, ...] = (3, 1),
    pattern: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the decorated function to the menagerie; `make(n)` gives its arguments."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        called = name or function.__name__
        assert called not in {e.name for e in ENTRIES}, f"{called} is there already"
        ENTRIES.append(Entry(called, function, make, smooth, batches, pattern))
        return function

    return add


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(size=shape, dtype=torch.float64)


def positive(*shape: int) -> torch.Tensor:
    """From 0.5 to 1.5."""
    return torch.rand(size=shape, dtype=torch.float64) + 0.5


def unit(*shape: int) -> torch.Tensor:
    """From 0.1 to 0.9."""
    return torch.rand(size=shape, dtype=torch.float64) * 0.8 + 0.1


def whole(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(high, shape)


def truths(*shape: int) -> torch.Tensor:
    return torch.rand(size=shape) > 0.4
