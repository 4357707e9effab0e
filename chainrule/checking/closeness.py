"""How near two tensors must be, told with the place where they differ; and autograd's gradients to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chainrule.derivation import Derivation


class Leaves:
    """For a while, the person's own tensors that a derivation gave a gradient for require gradients."""

    def __init__(self, d: Derivation, only_given: bool = False) -> None:
        self.names = [name for name, g in d.grads.items() if g is not None or not only_given]
        self.tensors = [tensor for tensor, g in d.pairs() if g is not None or not only_given]

    def __enter__(self) -> Leaves:
        self.switched = [t for t in self.tensors if not t.requires_grad]
        for tensor in self.switched:
            tensor.requires_grad_(True)
        return self

    def __exit__(self, *error: object) -> None:
        for tensor in self.switched:
            tensor.requires_grad_(False)

    def gradients(self, output: Tensor, upstream: Tensor | None = None, **how: Any) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(output, self.tensors, upstream, allow_unused=True, **how)


def assert_close(
    ours: Tensor | None, theirs: Tensor | None, tolerance: float = 1e-10, what: str = "a gradient"
) -> None:
    """Equal to `tolerance` of the largest element; None is a gradient of zeros.

    >>> assert_close(torch.ones(2), torch.tensor([1.0, 1.5]), what="the gradient of x")
    Traceback (most recent call last):
    AssertionError: the gradient of x (2,) differs by 0.5, most at [1]: 1 where autograd has 1.5
    """
    if ours is None or theirs is None:
        other = ours if theirs is None else theirs
        if other is not None and other.any():
            raise AssertionError(f"{what} {tuple(other.shape)} is none {'here' if ours is None else 'by autograd'}")
        return
    ours, theirs = ours.detach(), theirs.detach()
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        said = [f"{tuple(t.shape)} {t.dtype}" for t in (ours, theirs)]
        raise AssertionError(f"{what} is {said[0]} where autograd has {said[1]}")
    gaps = torch.where(ours.isfinite() & theirs.isfinite(), (ours - theirs).abs(), 0.0)
    gaps = torch.where(ours.isfinite() == theirs.isfinite(), gaps, torch.inf)
    if not gaps.numel():
        return
    size = float(torch.where(theirs.isfinite(), theirs, 0).abs().max())
    largest = float(gaps.max())
    if largest > tolerance * size + 1e-13:
        place = [int(i) for i in torch.unravel_index(gaps.argmax(), gaps.shape)] if gaps.ndim else []
        a, b = (complex(t[tuple(place)]) if t.is_complex() else float(t[tuple(place)]) for t in (ours, theirs))
        raise AssertionError(
            f"{what} {tuple(ours.shape)} differs by {largest:.3g}, most at {place}: {a:.6g} where autograd has {b:.6g}"
        )
