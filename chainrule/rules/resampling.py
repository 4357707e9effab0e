"""Resampling of images: each output is a weighted mean of inputs, and its gradient goes back by the same weights."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import rule

aten = torch.ops.aten

_STEPS = {
    "nearest": "upsample_nearest{}d_backward",
    "nearest-exact": "_upsample_nearest_exact{}d_backward",
    "linear": "upsample_linear{}d_backward",
    "bilinear": "upsample_bilinear{}d_backward",
    "trilinear": "upsample_trilinear{}d_backward",
    "bicubic": "upsample_bicubic{}d_backward",
    "antialiased bilinear": "_upsample_bilinear{}d_aa_backward",
    "antialiased bicubic": "_upsample_bicubic{}d_aa_backward",
    "antialiased lanczos": "_upsample_lanczos{}d_aa_backward",
}


@rule(
    F.interpolate,
    samples=["r(2, 2, 3), 5", "r(1, 2, 3, 4), scale_factor=2", "r(1, 1, 2, 3, 2), (3, 2, 3)", "r(1, 2, 3, 4), (5, 3), mode='nearest-exact'",
             "r(2, 2, 4), scale_factor=1.7, mode='linear'", "r(1, 2, 3, 4), (5, 3), mode='bilinear', align_corners=True",
             "r(1, 2, 3, 4), scale_factor=(2.3, 1.5), mode='bilinear'", "r(1, 2, 3, 4), scale_factor=2.3, mode='bilinear', recompute_scale_factor=True",
             "r(1, 2, 4, 4), scale_factor=1.5, mode='bicubic'", "r(1, 1, 2, 3, 2), 3, mode='trilinear'", "r(2, 2, 5), 3, mode='area'",
             "r(1, 2, 5, 4), (2, 3), mode='area'", "r(1, 1, 4, 3, 2), scale_factor=0.6, mode='area'",
             "r(1, 2, 6, 5), (3, 2), mode='bilinear', antialias=True", "r(1, 2, 6, 5), (3, 2), mode='bicubic', antialias=True"],
    note="torch.ops.aten's backward operations add what each input was weighted by, times the gradient of the output",
)  # fmt: skip
def interpolate(out, x, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None, antialias=False):  # fmt: skip
    if mode == "area":
        x.g = _averaged(out.g, x)
        return
    axes = x.ndim - 2
    step = getattr(aten, _STEPS[f"antialiased {mode}" if antialias else mode].format(axes))
    aligned = () if mode.startswith("nearest") else (bool(align_corners),)
    factors = () if scale_factor is None or recompute_scale_factor else scale_factor
    factors = factors if isinstance(factors, tuple | list) else [factors] * axes
    g = step(out.g, out.shape[2:], x.shape, *aligned, *factors)
    x.g = g


def _averaged(g, x):
    """The mode "area" is adaptive average pooling; in one dimension, of images one high."""
    if x.ndim == 3:
        return aten._adaptive_avg_pool2d_backward(g.unsqueeze(2), x.unsqueeze(2)).squeeze(2)
    return aten._adaptive_avg_pool2d_backward(g, x) if x.ndim == 4 else aten._adaptive_avg_pool3d_backward(g, x)


_SAMPLES = {
    "upsample_nearest1d": "r(2, 2, 5), (5,), (2, 2, 3)",
    "upsample_nearest2d": "r(1, 2, 4, 5), (4, 5), (1, 2, 2, 3), 2.0, 1.5",
    "upsample_nearest3d": "r(1, 1, 3, 2, 3), (3, 2, 3), (1, 1, 2, 3, 2)",
    "_upsample_nearest_exact1d": "r(2, 2, 5), (5,), (2, 2, 3)",
    "_upsample_nearest_exact2d": "r(1, 2, 4, 5), (4, 5), (1, 2, 2, 3)",
    "_upsample_nearest_exact3d": "r(1, 1, 3, 2, 3), (3, 2, 3), (1, 1, 2, 3, 2)",
    "upsample_linear1d": "r(2, 2, 5), (5,), (2, 2, 3), False",
    "upsample_bilinear2d": "r(1, 2, 4, 5), (4, 5), (1, 2, 2, 3), True",
    "upsample_trilinear3d": "r(1, 1, 3, 2, 3), (3, 2, 3), (1, 1, 2, 3, 2), False",
    "upsample_bicubic2d": "r(1, 2, 4, 5), (4, 5), (1, 2, 2, 3), False, 2.0, 1.7",
    "_upsample_bilinear2d_aa": "r(1, 2, 2, 3), (2, 3), (1, 2, 4, 5), False",
    "_upsample_bicubic2d_aa": "r(1, 2, 2, 3), (2, 3), (1, 2, 4, 5), False",
}


def _back_again(forward):
    """Resampling is linear, so the backward step of its backward step is resampling."""

    def backward(out, g, output_size, input_size, *how):
        g.g = forward(out.g, output_size, *how)

    return backward


for _name, _sample in _SAMPLES.items():
    rule(getattr(aten, f"{_name}_backward"), samples=[_sample])(_back_again(getattr(aten, _name)))  # type: ignore[no-untyped-call]


@rule(aten._upsample_bilinear2d_aa, samples=["r(1, 2, 6, 5), (3, 2), False", "r(1, 2, 6, 5), (3, 2), True, None, 0.5"])
def upsample_bilinear2d_aa(out, x, output_size, align_corners, scales_h=None, scales_w=None, scale_factors=None):
    scales = scales_h if isinstance(scales_h, tuple | list) else scale_factors or (scales_h, scales_w)
    x.g = aten._upsample_bilinear2d_aa_backward(out.g, out.shape[2:], x.shape, align_corners, *scales)


_MODES = ("bilinear", "nearest", "bicubic")
_MARGINS = ("zeros", "border", "reflection")


@rule(
    F.grid_sample,
    samples=["r(2, 3, 4, 5), u(2, 2, 3, 2), align_corners=False", "r(1, 2, 4, 5), r(1, 2, 3, 2), padding_mode='border', align_corners=True",
             "r(1, 2, 4, 5), r(1, 2, 3, 2), mode='bicubic', padding_mode='reflection', align_corners=False",
             "r(1, 2, 4, 5), u(1, 2, 3, 2), mode='nearest', align_corners=False", "r(1, 2, 3, 4, 3), u(1, 2, 2, 3, 3), align_corners=False"],
    note="the backward operation of torch.ops.aten gives the gradients of the image and of the places looked up",
)  # fmt: skip
def grid_sample(out, x, grid, mode="bilinear", padding_mode="zeros", align_corners=None):
    grid_sampler(out, x, grid, _MODES.index(mode), _MARGINS.index(padding_mode), bool(align_corners))


@rule(torch.grid_sampler, torch.grid_sampler_2d, samples=["r(2, 3, 4, 5), u(2, 2, 3, 2), 0, 0, False"])
@rule(torch.grid_sampler_3d, samples=["r(1, 2, 3, 4, 3), u(1, 2, 2, 3, 3), 0, 1, True"])
def grid_sampler(out, x, grid, interpolation_mode, padding_mode, align_corners):
    step = aten.grid_sampler_2d_backward if x.ndim == 4 else aten.grid_sampler_3d_backward
    x.g, grid.g = step(out.g, x, grid, interpolation_mode, padding_mode, align_corners, [True, True])


@rule(F.affine_grid, samples=["r(2, 2, 3), (2, 1, 3, 4), align_corners=False", "r(1, 3, 4), (1, 1, 2, 3, 4), align_corners=True"],
      note="the grid is a matrix product of theta with the places of the pixels, (x, y, 1)")  # fmt: skip
def affine_grid(out, theta, size, align_corners=None):
    same = torch.eye(theta.shape[1], theta.shape[2], dtype=theta.dtype, device=theta.device)
    places = F.affine_grid(same.expand(theta.shape), size, align_corners)
    places = F.pad(places, (0, 1), value=1).flatten(1, -2)
    theta.g = out.g.flatten(1, -2).mT @ places


@rule(F.pixel_shuffle, samples=["r(2, 8, 3, 2), 2", "r(4, 2, 3), 2"], complex=True)
def pixel_shuffle(out, x, upscale_factor):
    x.g = F.pixel_unshuffle(out.g, upscale_factor)


@rule(F.pixel_unshuffle, samples=["r(2, 2, 4, 6), 2", "r(3, 2, 4), 2"], complex=True)
def pixel_unshuffle(out, x, downscale_factor):
    x.g = F.pixel_shuffle(out.g, downscale_factor)


@rule(F.channel_shuffle, samples=["r(2, 6, 3, 2), 2", "r(1, 6, 2), 3"], complex=True,
      note="undone by a shuffle of as many groups as a group had channels")  # fmt: skip
def channel_shuffle(out, x, groups):
    x.g = F.channel_shuffle(out.g, x.shape[1] // groups)
