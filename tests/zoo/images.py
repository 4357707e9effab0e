"""Images: margins, windows, resampling; their sizes stay open."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.registry import normal, zoo


@zoo(lambda n: (normal(n, 2, 4, 5),))
def margins_of_every_kind(x: Tensor) -> Tensor:
    total = F.pad(x, (1, 2, 0, -1), value=0.5).pow(2).mean()
    for mode in ("reflect", "replicate", "circular"):
        total = total + F.pad(x, (1, 2, 0, 3), mode=mode).sin().sum()
    return total


@zoo(lambda n: (normal(n, 2),))
def padded_to_a_length(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 7 - x.shape[0])).cos().sum()


@zoo(lambda n: (normal(n, 3, 4, 5), normal(2, 12)))
def convolution_by_unfolding(x: Tensor, w: Tensor) -> Tensor:
    patches = F.unfold(x, 2, padding=1)
    y = (w @ patches).tanh()
    return F.fold(w.T @ y, (x.shape[2], x.shape[3]), 2, padding=1).pow(2).sum()


@zoo(lambda n: (normal(n, 7),))
def sliding_windows(x: Tensor) -> Tensor:
    windows = x.unfold(1, 3, 2)
    return windows.softmax(-1).amax(-1).sum() + windows.mean(-1).pow(3).sum()


@zoo(lambda n: (normal(n, 2, 4, 3), normal(n, 2, 8, 6)))
def up_and_added(x: Tensor, skip: Tensor) -> Tensor:
    up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    down = F.interpolate(skip, size=x.shape[2:])
    return (up + skip).tanh().mean() + (down * x).sum()


@zoo(lambda n: (normal(n, 4, 2, 3),))
def pixels_shuffled(x: Tensor) -> Tensor:
    return F.pixel_unshuffle(F.pixel_shuffle(x, 2).sin(), 2).mul(F.channel_shuffle(x, 2)).sum()


@zoo(lambda n: (normal(n), normal(4)))
def a_grid_of_points(a: Tensor, b: Tensor) -> Tensor:
    x, y = torch.meshgrid(a, b, indexing="xy")
    return (x.sin() * y).sum() + torch.cartesian_prod(a, b).prod(1).exp().sum()


@zoo(lambda n: (normal(n, 3), normal(n)))
def stacked_in_every_direction(x: Tensor, v: Tensor) -> Tensor:
    wide = torch.column_stack([x, v]).sum() * torch.hstack([x, x.sin(), x.flip(1)])
    tall = torch.vstack([x, x.roll(1, 0)]).tile(1, 2).rot90()
    return wide.tanh().sum() + tall.pow(3).sum() + torch.block_diag(x, x.exp()).diagonal().sum()
