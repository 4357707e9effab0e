"""Sample inputs for rules, written as a call: `"r(3, 4), r(4, 5), dim=0"`.

The makers are seeded afresh for each sample, so a sample gives the same tensors every time.
"""

from __future__ import annotations

from typing import Any

import torch


def arguments(sample: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that `sample` stands for.

    r(3, 4) normal numbers; p(...) positive numbers, from 0.5 to 1.5; u(...) numbers from 0.1 to 0.9;
    i(5, 3, 4) whole numbers below 5 of shape (3, 4); m(...) a mask; z(...) complex normal numbers;
    s(3, 3) symmetric positive definite matrices, l(3, 3) lower triangular ones.

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

    def s(*shape: int) -> torch.Tensor:
        half = r(*shape)
        return half @ half.mT + torch.eye(shape[-1], dtype=dtype)

    def lower(*shape: int) -> torch.Tensor:
        return r(*shape).tril(-1) + torch.diag_embed(p(*shape[:-1]))

    def z(*shape: int) -> torch.Tensor:
        return torch.complex(r(*shape), r(*shape))

    def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    makers = {"r": r, "p": p, "u": u, "i": i, "m": m, "s": s, "l": lower, "z": z}
    names = {**makers, "torch": torch, "collect": collect, "slice": slice}
    made: tuple[tuple[Any, ...], dict[str, Any]] = eval(f"collect({sample})", names)  # samples are our own text
    return made


def kept(tensor: torch.Tensor) -> str:
    """What keeps a symmetric or triangular matrix one while its elements are moved: a call on `{}`, or "".

    Operations that read such matrices count on their form: each element alone is not theirs to have a slope in.

    >>> kept(torch.eye(3)), kept(torch.ones(3, 3).triu()), kept(torch.rand(3, 3))
    ('({0} + {0}.mT) / 2', '{0}.triu()', '')
    """
    if tensor.ndim < 2 or tensor.shape[-1] != tensor.shape[-2] or not tensor.dtype.is_floating_point:
        return ""
    forms = {"({0} + {0}.mT) / 2": tensor.mT, "{0}.tril()": tensor.tril(), "{0}.triu()": tensor.triu()}
    return next((text for text, form in forms.items() if torch.equal(tensor, form)), "") if tensor.shape[-1] > 1 else ""
