"""Normalisation: the mean and the variance depend on every element, so each gradient has three paths."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import rule


@rule(F.layer_norm, samples=["r(3, 4), (4,)", "r(3, 4), (4,), p(4), r(4)", "r(2, 3, 4), (3, 4), p(3, 4), r(3, 4)", "r(3, 4), (4,), p(4)",
                             "r(3, 4), (4,), None, None, 1e-3"])  # fmt: skip
def layer_norm(out, x, normalized_shape, weight=None, bias=None, eps=1e-05):
    axes = -1 if len(normalized_shape) == 1 else tuple(range(-len(normalized_shape), 0))
    scale = torch.rsqrt(x.var(axes, unbiased=False, keepdim=True) + eps)
    normal = (x - x.mean(axes, keepdim=True)) * scale
    g = out.g if weight is None else out.g * weight
    x.g = scale * (g - g.mean(axes, keepdim=True) - normal * (g * normal).mean(axes, keepdim=True))
    if weight is not None:
        weight.g = out.g * normal
    if bias is not None:
        bias.g = out.g
