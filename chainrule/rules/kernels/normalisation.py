"""Normalisations, which keep the mean and the scale for the way back."""

import torch
import torch.nn.functional as F

from chainrule.rules import normalisation as ordinary
from chainrule.rules.book import KERNELS, kernel, opening, reached

aten = torch.ops.aten


def _leave(slots, gradients):
    """The gradients on those that ask for one; a kernel gives None for the others."""
    for slot, gradient in zip(slots, gradients, strict=True):
        if gradient is not None:
            slot.g = gradient


@opening(F.layer_norm, torch.layer_norm, book=KERNELS)
def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-05, cudnn_enable=True):
    return aten.native_layer_norm.default(input, normalized_shape, weight, bias, eps)[0]


@kernel(aten.native_layer_norm.default, samples=["r(3, 4), (4,), None, None, 1e-5", "r(3, 4), (4,), p(4), None, 1e-5",
                                                 "r(2, 3, 4), (3, 4), p(3, 4), r(3, 4), 1e-3"])  # fmt: skip
def native_layer_norm(out, x, normalized_shape, weight, bias, eps):
    y, mean, scale = out
    slots = x, weight, bias
    asked = [reached(slot) for slot in slots]
    kept = mean, scale, weight, bias
    g = y.g.contiguous()  # as the kernel's result lies
    _leave(slots, aten.native_layer_norm_backward.default(g, x, normalized_shape, *kept, asked))


@opening(F.group_norm, torch.group_norm, book=KERNELS)
def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    if input.numel() == 0:
        return NotImplemented
    n, c = input.shape[:2]
    x = _laid_out(input)
    weight, bias = (v if v is None else v.contiguous() for v in (weight, bias))
    return aten.native_group_norm.default(x, weight, bias, n, c, input.numel() // (n * c), num_groups, eps)[0]


def _laid_out(x):
    """`x` in one of the two orders in memory that the kernels of groups know."""
    return x if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


@kernel(aten.native_group_norm.default, samples=["r(3, 4, 5), None, None, 3, 4, 5, 2, 1e-5",
                                                 "r(2, 6, 2, 3), p(6), r(6), 2, 6, 6, 3, 0.01"])  # fmt: skip
def native_group_norm(out, x, weight, bias, n, c, space, groups, eps):
    y, mean, scale = out
    if reached(mean) or reached(scale):
        return NotImplemented
    slots = x, weight, bias
    asked = [reached(slot) for slot in slots]
    g = y.g.contiguous() if x.is_contiguous() else y.g.contiguous(memory_format=torch.channels_last)
    kept = mean, scale, weight, n, c, space, groups
    return _leave(slots, aten.native_group_norm_backward.default(g, x, *kept, asked))


@opening(F.rms_norm, torch.rms_norm, book=KERNELS)
def rms_norm(input, normalized_shape, weight=None, eps=None):
    return aten._fused_rms_norm.default(input, normalized_shape, weight, eps)[0]


@kernel(aten._fused_rms_norm.default, samples=["r(3, 4), (4,), None, None", "r(2, 3, 4), (3, 4), p(3, 4), 1e-3"])
def fused_rms_norm(out, x, normalized_shape, weight, eps):
    """torch has a backward kernel on some devices alone; the scale is at hand on all."""
    y, scale = out
    if reached(scale):
        return NotImplemented
    normal = x * scale
    g = y.g if weight is None else y.g * weight
    x.g = scale * (g - normal * (g * normal).mean(ordinary._last(normalized_shape), keepdim=True))
    if weight is not None:
        weight.g = y.g * normal
    return None


@opening(F.batch_norm, book=KERNELS)
def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """In training the running statistics are results like others, written back afterwards."""
    if input.numel() == 0:  # which the kernels divide by
        return ordinary.batch_norm_in_training(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if training and input.numel() == input.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    if not training or running_mean is None:
        out = aten.native_batch_norm.default(input, weight, bias, running_mean, running_var, training, momentum, eps)
        return out[0]
    both = running_mean, running_var
    out = aten._native_batch_norm_legit_functional.default(input, weight, bias, *both, True, momentum, eps)
    with torch.no_grad():
        running_mean.copy_(out[3])
        running_var.copy_(out[4])
    return out[0]


@kernel(aten.native_batch_norm.default, aten._native_batch_norm_legit_functional.default,
        samples=["r(5, 3), p(3), r(3), r(3), p(3), True, 0.1, 1e-5", "r(4, 3, 2, 2), None, None, r(3), p(3), True, 0.1, 0.01"])  # fmt: skip
def native_batch_norm(out, x, weight, bias, running_mean, running_var, training, momentum, eps):
    y, mean, scale, *_ = out
    slots = x, weight, bias
    asked = [reached(slot) for slot in slots]
    kept = weight, running_mean, running_var, mean, scale, training, eps
    _leave(slots, aten.native_batch_norm_backward.default(y.g, x, *kept, asked))
    for statistics in (running_mean, running_var):
        if reached(statistics):
            statistics.g = None  # autograd defines none


@opening(F.instance_norm, book=KERNELS)
def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    """A batch of one, in which each channel of each example is a channel of its own."""
    if not use_input_stats or running_mean is not None or input.numel() == 0:
        return ordinary.instance_norm_in_training(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        )
    n, c, *space = input.shape
    weight, bias = (v if v is None else v.repeat(n) for v in (weight, bias))
    return F.batch_norm(input.reshape(1, n * c, *space), None, None, weight, bias, True, eps=eps).reshape(input.shape)
