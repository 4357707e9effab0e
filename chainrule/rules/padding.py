"""Padding: what was copied to the margin adds its gradient to the element that it was copied from."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import rule


@rule(torch.constant_pad_nd, samples=["r(3, 4), (1, 2)", "r(2, 3, 4), (0, 1, -1, 2), 0.5"], complex=True)
def constant_pad_nd(out, x, pad, value=0):
    x.g = F.pad(out.g, [-n for n in pad])


@rule(
    F.pad,
    samples=["r(3, 4), (1, 2)", "r(2, 3, 4), (1, 0, -1, 2), value=0.5", "r(2, 3), (1, 1, 2, 0), 'constant', 1.0",
             "r(2, 3, 4), (2, 1), mode='reflect'", "r(2, 3, 4), (2, 1), mode='replicate'", "r(2, 3, 4), (2, 3), mode='circular'",
             "r(2, 3, 4), (1, 2, 1, 0), 'reflect'", "r(2, 3, 4), (1, 2, 3, 0), 'replicate'", "r(1, 2, 3, 4), (1, 2, 1, 0), 'circular'",
             "r(1, 2, 3, 2, 4), (1, 0, 0, 1, 2, 1), 'reflect'", "r(2, 3, 4), (-1, 2), 'replicate'", "r(2, 3, 4), (2, -1), 'circular'"],
    complex=True,
)  # fmt: skip
def pad(out, x, pad, mode="constant", value=None):
    if mode == "constant":
        constant_pad_nd(out, x, pad)
        return
    margins = {x.ndim - 1 - i: pad[2 * i : 2 * i + 2] for i in range(len(pad) // 2)}
    margins = {axis: (left, right) for axis, (left, right) in margins.items() if left != 0 or right != 0}
    sizes = [out.shape[axis] if axis in margins else x.shape[axis] for axis in range(x.ndim)]
    g = out.g
    for axis, (left, right) in margins.items():
        n = sizes[axis] = x.shape[axis]
        origin = _origin(torch.arange(-left, n + right, device=x.device), n, mode, min(left, 0), min(right, 0))
        g = g.new_zeros(tuple(sizes)).index_add(axis, origin, g)
    x.g = g


def _origin(place, n, mode, first, last):
    """Where each element along an axis of n was copied from; the margins are the places below 0 and from n on.

    A negative `first` or `last` cuts so many elements off before the others are copied."""
    if mode == "circular":
        return (place + first) % (n + first + last) - first if first else place % (n + last)
    if mode == "replicate":
        return place.clamp(0, n - 1)
    return n - 1 - (n - 1 - place.abs()).abs()  # reflected at the first element and at the last
