"""Sample inputs for rules, written as a call: `"r(3, 4), r(4, 5), dim=0"`.

The makers are seeded afresh for each sample, so a sample gives the same tensors every time.
"""

from __future__ import annotations

from typing import Any

import torch


def arguments(sample: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that `sample` stands for.

    r(3, 4) normal numbers; p(...) positive numbers, from 0.5 to 1.5; u(...) numbers from 0.1 to 0.9;
    i(5, 3, 4) whole numbers below 5 of shape (3, 4); m(...) a mask; z(...) complex normal numbers.

    >>> args, kwargs = arguments("r(3, 4), dim=0")
    >>> args[0].shape, kwargs
    (torch.Size([3, 4]), {'dim': 0})
    """
    generator = torch.Generator().manual_seed(seed)

    def r(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator) if shape else r(1)[0]

    def p(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, dtype=dtype, generator=generator) + 0.5 if shape else p(1)[0]

    def u(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, dtype=dtype, generator=generator) * 0.8 + 0.1 if shape else u(1)[0]

    def i(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator)

    def m(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) > 0.4

    def z(*shape: int) -> torch.Tensor:
        return torch.complex(r(*shape), r(*shape))

    def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    names = {"r": r, "p": p, "u": u, "i": i, "m": m, "z": z, "torch": torch, "collect": collect, "slice": slice}
    made: tuple[tuple[Any, ...], dict[str, Any]] = eval(f"collect({sample})", names)  # samples are our own text
    return made
