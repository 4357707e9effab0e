"""Other random values for the inputs of a recorded program, of the kind that each is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from chainrule.run import double

SPARSE = 0.25  # from this share of zeros on, the zeros mean something (a triangle, padding), and stay
_FEW = 100  # elements
Input = TypeVar("Input")


def fresh(inputs: Mapping[Input, Any], seed: int) -> dict[Input, Any]:
    """Other random values of the same shapes, in float64, of similar scale and of the kind that each input is.

    What is positive everywhere stays positive, what lies between 0 and 1 stays there, what sums to one along the
    last axis still does, a symmetric matrix stays symmetric (and positive definite), increasing numbers increase,
    what stands twice in each row (the angles of a rotary embedding) does, and many zeros stay where they are. The rows of a tensor of two values (a mask, one-hot rows) are permuted;
    integers, truth values and what is not a tensor stay as they are.

    >>> other = fresh({"x": torch.ones(2, 3), "i": torch.arange(3)}, seed=0)
    >>> other["x"].dtype, bool((other["x"] > 0).all()), other["i"]
    (torch.float64, True, tensor([0, 1, 2]))
    """
    with torch.no_grad():
        return {n: _fresh(v, _generator(seed, k)) for k, (n, v) in enumerate(inputs.items())}


def _generator(seed: int, k: int) -> torch.Generator:
    return torch.Generator().manual_seed(1009 * seed + k)


def _fresh(value: Any, generator: torch.Generator) -> Any:
    if not isinstance(value, torch.Tensor) or not (value.dtype.is_floating_point or value.dtype.is_complex):
        return value
    value = double(value.detach())
    if not value.numel():
        return value.clone()
    finite = value.isfinite()
    if value.dtype.is_complex:
        size = value.abs().pow(2).mean().sqrt() or 0.1
        drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
        return torch.where(finite, size * drawn, value)
    if _two_valued(value):
        return value[_order(len(value), generator)] if value.ndim else value.clone()
    if not finite.any():
        return value.clone()
    if not finite.all():
        return torch.where(finite, _fresh(value.where(finite, value[finite].mean()), generator), value)
    square = value.ndim >= 2 and value.shape[-1] == value.shape[-2] > 1 and bool(value.any())
    if square and bool(((value - value.mT).abs() <= 1e-5 * value.abs().max()).all()):
        return _symmetric((value + value.mT) / 2, generator)
    if (twice := _twice(value)) is not None:
        return twice.whole(_fresh(twice.half(value), generator))
    made = varied(value, generator)
    if value.ndim == 1 and len(value) > 2 and bool((value.diff() > 0).all()):
        made = made.sort().values
    return made


class _Twice:
    """Rows that are one half, twice: one after the other, or element by element."""

    def __init__(self, by_element: bool) -> None:
        self.by_element = by_element

    def half(self, value: torch.Tensor) -> torch.Tensor:
        return value[..., ::2] if self.by_element else value[..., : value.shape[-1] // 2]

    def whole(self, half: torch.Tensor) -> torch.Tensor:
        return half.repeat_interleave(2, -1) if self.by_element else torch.cat([half, half], -1)


def _twice(value: torch.Tensor) -> _Twice | None:
    """How the rows of a tensor are made of one half, where they are."""
    if value.ndim and value.shape[-1] >= 4 and value.shape[-1] % 2 == 0 and bool((value != value.flatten()[0]).any()):
        both = (_Twice(False), _Twice(True))
        return next((t for t in both if torch.equal(t.whole(t.half(value)), value)), None)
    return None


def repeated(value: torch.Tensor, shape: tuple[int, ...], strict: bool = False) -> torch.Tensor:
    """A tensor repeated along its axes as far as another shape needs; rows that are one half, twice, still are.

    Raises ValueError where they cannot be, if that is `strict`.
    """
    twice = _twice(value) if shape[-1:] != value.shape[-1:] else None
    if twice is not None and shape[-1] % 2 and strict:
        raise ValueError("an odd number of elements is no half twice")
    if twice is not None and shape[-1] % 2 == 0:
        return twice.whole(repeated(twice.half(value), (*shape[:-1], shape[-1] // 2)))
    for k, size in enumerate(shape):
        if size != value.shape[k]:
            value = value.index_select(k, torch.arange(size, device=value.device) % value.shape[k])
    return value


def _two_valued(value: torch.Tensor) -> bool:
    """Zeros and one other value, or two values in many places: a mask, a scaled mask, one-hot rows, labels 1 and -1."""
    if len(torch.unique(value.flatten()[:_FEW])) > 2:  # which says it, of large tensors, at once
        return False
    values = torch.unique(value)
    return len(values) == 2 and (value.numel() > 2 or bool((values == 0).any()))


def _order(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(n, generator=generator)


def _normal(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.device)


def varied(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Other real numbers in place of `value`."""
    if bool((value <= 0).all()) and bool((value < 0).any()):
        return -varied(-value, generator)
    if bool((value >= 0).all()) and bool((value > 0).any()):
        away = float((value - value.mean()).pow(2).mean().sqrt() / value.mean())
        spread = (min(0.3, away or 0.3) * _normal(value, generator)).exp()
        made = value.flatten()[_order(value.numel(), generator).to(value.device)].view(value.shape)
        made = made**spread if float(value.max()) <= 1.0 and bool((value != value.max()).any()) else made * spread
        sums = value.sum(-1) if value.ndim and value.shape[-1] > 1 else value.new_zeros(())
        if torch.allclose(sums, torch.ones_like(sums), rtol=1e-3, atol=1e-3):
            made = made / made.sum(-1, keepdim=True)
        return made
    mean = value.mean() if value.numel() > 1 else value.new_zeros(())
    size = float((value - mean).pow(2).mean().sqrt()) or 0.1  # a bias that starts at zero
    made = mean + size * _normal(value, generator)
    zeros = value == 0
    return made.masked_fill(zeros, 0.0) if SPARSE <= float(zeros.double().mean()) < 1.0 else made


def _symmetric(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """S A S for a positive diagonal S, which keeps every sign and positive definiteness, and a larger diagonal."""
    n = value.shape[-1]
    scale = (0.2 * torch.randn(n, generator=generator, dtype=torch.float64)).exp().to(value.device)
    made = value * scale.outer(scale)
    diagonal = made.diagonal(dim1=-2, dim2=-1)
    return made + torch.diag_embed(0.25 * diagonal) if bool((diagonal > 0).all()) else made
