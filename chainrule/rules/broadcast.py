"""The backward step of broadcasting: what was stretched forward is summed backward."""

from __future__ import annotations

import numpy as np
import torch


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that broadcasting gives.

    >>> broadcast((5, 1), (3,), ())
    (5, 3)
    """
    return np.broadcast_shapes(*shapes)  # torch's own imports sympy, which takes half a second


def unbroadcast(g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`g` summed over the axes along which `x` was stretched to the shape of `g`.

    If y[i, j] = b[j] then dL/db[j] = sum over i of dL/dy[i, j].

    >>> unbroadcast(torch.ones(5, 3), torch.zeros(3))
    tensor([5., 5., 5.])
    >>> unbroadcast(torch.ones(5, 3), torch.zeros(5, 1)).shape
    torch.Size([5, 1])
    """
    if g.ndim == x.ndim and all(int(s) == int(t) for s, t in zip(tuple(g.shape), tuple(x.shape), strict=True)):
        return g
    if x.ndim == 0:
        return g.sum()
    lead = g.ndim - x.ndim
    if lead < 0 or broadcast(tuple(x.shape), tuple(g.shape)) != tuple(g.shape):
        raise ValueError(f"a gradient of shape {tuple(g.shape)} for a value of shape {tuple(x.shape)}")
    ones = [axis for axis in range(x.ndim) if int(x.shape[axis]) == 1 != int(g.shape[lead + axis])]
    if ones and lead:
        return g.sum_to_size(x.shape)
    axes = tuple(ones) if ones else tuple(range(lead))
    dim = axes[0] if len(axes) == 1 else axes
    return g.sum(dim, keepdim=True) if ones else g.sum(dim)
