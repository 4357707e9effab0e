"""How far two gradients are apart, and how near is near enough."""

from __future__ import annotations

import math
from typing import Any

import torch


def difference(a: Any, b: Any) -> float:
    if a is None or b is None:
        other = b if a is None else a
        return 0.0 if other is None or not other.numel() else float(other.abs().max())
    return float((a - b).abs().max()) if a.numel() else 0.0


def close(ours: Any, theirs: Any, tolerance: float | None = None, floor: float = 1e-30) -> bool:
    if ours is None or theirs is None or not ours.numel():
        return difference(ours, theirs) <= (tolerance or 0) * floor
    if ours.shape != theirs.shape:
        return False
    if tolerance is None:
        tolerance = (
            1e4 * torch.finfo(ours.dtype).eps if ours.dtype == torch.float64 else 30 * torch.finfo(ours.dtype).eps
        )
    theirs, scale, gap = theirs.to(ours.dtype), 0.0, 0.0
    for a, b in zip(pieces(ours), pieces(theirs), strict=True):
        if not math.isfinite(float((a - b).abs().max())):
            finite = torch.isfinite(b)
            if not torch.equal(finite, torch.isfinite(a)):
                return False
            a, b = a[finite], b[finite]
        if a.numel():
            scale, gap = max(scale, float(b.abs().max())), max(gap, float((a - b).abs().max()))
    return gap <= tolerance * max(scale, floor)


def pieces(value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Parts of a tensor, so that comparing two large ones takes no memory of their size."""
    flat = value.reshape(-1)
    return tuple(flat[start : start + (1 << 20)] for start in range(0, flat.numel(), 1 << 20))
