"""Normalisation: the mean and the variance depend on every element, so each gradient has three paths.

Batch statistics change the running ones in place. Those writes are recorded beside the normalisation, which then
reads no running statistics: the person's layer is updated once, and the derived code may be run at will.
"""

import torch
import torch.nn.functional as F

from chainrule.rules.book import opening, rule

SOURCE = "Ioffe and Szegedy (2015), Batch Normalization, section 3"


def _through_statistics(g, normal, scale, axes):
    """The gradient of (x - mean) * scale: by itself, through the mean, and through the variance."""
    return scale * (g - g.mean(axes, keepdim=True) - normal * (g * normal).mean(axes, keepdim=True))


def _scale(x, axes, eps):
    return torch.rsqrt(x.var(axes, unbiased=False, keepdim=True) + eps)


def _last(normalized_shape):
    return -1 if len(normalized_shape) == 1 else tuple(range(-len(normalized_shape), 0))


@rule(F.layer_norm, samples=["r(3, 4), (4,)", "r(3, 4), (4,), p(4), r(4)", "r(2, 3, 4), (3, 4), p(3, 4), r(3, 4)", "r(3, 4), (4,), p(4)",
                             "r(3, 4), (4,), None, None, 1e-3"],
      source="Ba, Kiros and Hinton (2016), Layer Normalization")  # fmt: skip
def layer_norm(out, x, normalized_shape, weight=None, bias=None, eps=1e-05, cudnn_enable=True):
    axes = _last(normalized_shape)
    scale = _scale(x, axes, eps)
    normal = (x - x.mean(axes, keepdim=True)) * scale
    g = out.g if weight is None else out.g * weight
    x.g = _through_statistics(g, normal, scale, axes)
    if weight is not None:
        weight.g = out.g * normal
    if bias is not None:
        bias.g = out.g


@rule(F.rms_norm, samples=["r(3, 4), (4,)", "r(3, 4), (4,), p(4)", "r(2, 3, 4), (3, 4), p(3, 4), 1e-3"],
      source="Zhang and Sennrich (2019), Root Mean Square Layer Normalization")  # fmt: skip
def rms_norm(out, x, normalized_shape, weight=None, eps=None):
    axes = _last(normalized_shape)
    scale = torch.rsqrt((x**2).mean(axes, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
    normal = x * scale
    g = out.g if weight is None else out.g * weight
    x.g = scale * (g - normal * (g * normal).mean(axes, keepdim=True))
    if weight is not None:
        weight.g = out.g * normal


def _per_channel(v, x):
    """A vector over the channels, axis 1 of `x`, in a shape that broadcasts with `x`."""
    return v if x.ndim <= 2 else v.reshape(-1, *[1] * (x.ndim - 2))


def _but_channels(x):
    return 0 if x.ndim <= 2 else (0, *range(2, x.ndim))


def _inside_channels(x):
    return 2 if x.ndim == 3 else tuple(range(2, x.ndim))


def _affine(g, x, normal, weight, bias):
    """The gradients of the scale and the shift of each channel; the gradient that goes further down."""
    if bias is not None:
        bias.g = g.sum(_but_channels(x))
    if weight is None:
        return g
    weight.g = (g * normal).sum(_but_channels(x))
    return g * _per_channel(weight, x)


BATCHES = ["r(5, 3), None, None, p(3), r(3), True", "r(4, 3, 2), None, None, p(3), r(3), True", "r(4, 3, 2, 2), None, None, None, None, True, 0.1, 0.01",
           "r(5, 3), r(3), p(3), p(3), r(3)", "r(4, 3, 2, 2), r(3), p(3), p(3), None, False"]  # fmt: skip


@rule(F.batch_norm, samples=BATCHES, source=SOURCE,
      note="in training the running statistics are not read; elsewhere they are constants")  # fmt: skip
def batch_norm(out, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training:
        axes = _but_channels(x)
        scale = _scale(x, axes, eps)
        normal = (x - x.mean(axes, keepdim=True)) * scale
        g = _affine(out.g, x, normal, weight, bias)
        x.g = _through_statistics(g, normal, scale, axes)
    else:
        running_mean.g = running_var.g = None  # autograd defines none
        scale = _per_channel(torch.rsqrt(running_var + eps), x)
        normal = (x - _per_channel(running_mean, x)) * scale
        x.g = _affine(out.g, x, normal, weight, bias) * scale


@rule(F.instance_norm, samples=["r(4, 3, 5)", "r(4, 3, 5), None, None, p(3), r(3)", "r(2, 3, 4, 2), None, None, p(3), None, True, 0.1, 0.01",
                                "r(4, 3, 5), r(3), p(3), p(3), r(3), False"],
      source="Ulyanov, Vedaldi and Lempitsky (2016), Instance Normalization")  # fmt: skip
def instance_norm(
    out, x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    if not use_input_stats:
        return batch_norm(out, x, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = _inside_channels(x)
    scale = _scale(x, axes, eps)
    normal = (x - x.mean(axes, keepdim=True)) * scale
    g = _affine(out.g, x, normal, weight, bias)
    x.g = _through_statistics(g, normal, scale, axes)
    return None


@rule(F.group_norm, samples=["r(3, 4, 5), 2", "r(3, 4, 2), 2, p(4), r(4)", "r(2, 6, 2, 3), 3, p(6), None, 0.01"],
      source="Wu and He (2018), Group Normalization")  # fmt: skip
def group_norm(out, x, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    axes, in_groups = tuple(range(2, x.ndim + 1)), (num_groups, -1)
    groups = x.unflatten(1, in_groups)
    scale = _scale(groups, axes, eps)
    normal = (groups - groups.mean(axes, keepdim=True)) * scale
    g = _affine(out.g, x, normal.flatten(1, 2), weight, bias).unflatten(1, in_groups)
    x.g = _through_statistics(g, normal, scale, axes).flatten(1, 2)


def _statistics(x, axes, eps, keepdim):
    """The mean and the scale, which carry no gradient in autograd where a normalisation returns them."""
    x = x.detach()
    return x.mean(axes, keepdim), torch.rsqrt(x.var(axes, unbiased=False, keepdim=keepdim) + eps)


@opening(torch.native_layer_norm)
def native_layer_norm(input, normalized_shape, weight, bias, eps):
    out = F.layer_norm(input, normalized_shape, weight, bias, eps)
    return out, *_statistics(input, _last(normalized_shape), eps, True)


@opening(torch.native_group_norm)
def native_group_norm(input, weight, bias, N, C, HxW, group, eps):
    groups = input.reshape(N, group, C // group * HxW)
    scale = torch.rsqrt(groups.var(-1, unbiased=False) + eps)  # here the gradient does pass
    return F.group_norm(input, group, weight, bias, eps), groups.mean(-1), scale


def _move(running_mean, running_var, mean, var, momentum):
    """The running statistics a step towards those of the batch; the variance is the unbiased one."""
    if running_mean is not None:
        running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
    if running_var is not None:
        running_var.mul_(1 - momentum).add_(var, alpha=momentum)


@opening(F.batch_norm)
def batch_norm_in_training(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
):
    if not training or running_mean is None:
        return NotImplemented
    out = F.batch_norm(input, None, None, weight, bias, training, eps=eps)
    with torch.no_grad():
        axes = _but_channels(input)
        _move(running_mean, running_var, input.mean(axes), input.var(axes), momentum)
    return out


@opening(torch.batch_norm)
def torch_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled=True):
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


@opening(torch.native_batch_norm)
def native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps):
    out = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return out, *(torch.empty(0, dtype=input.dtype, device=input.device) for _ in range(2))
    return out, *_statistics(input, _but_channels(input), eps, False)


@opening(torch._native_batch_norm_legit, torch.ops.aten._native_batch_norm_legit)
def native_batch_norm_legit(input, weight, bias, *rest):
    statistics = (None, None) if isinstance(rest[0], bool) else ()  # the form that takes no running statistics
    return torch.native_batch_norm(input, weight, bias, *statistics, *rest)


@opening(torch.ops.aten._batch_norm_with_update)
def batch_norm_with_update(input, weight, bias, running_mean, running_var, momentum, eps):
    parts = torch.native_batch_norm(input, weight, bias, running_mean, running_var, True, momentum, eps)
    return (*parts, torch.empty(0, dtype=torch.uint8, device=input.device))


@opening(F.instance_norm)
def instance_norm_in_training(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    if not use_input_stats or running_mean is None:
        return NotImplemented
    out = F.instance_norm(input, None, None, weight, bias, eps=eps)
    with torch.no_grad():
        axes = _inside_channels(input)
        _move(running_mean, running_var, input.mean(axes).mean(0), input.var(axes).mean(0), momentum)
    return out


@opening(torch.instance_norm)
def torch_instance_norm(
    input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, cudnn_enabled=True
):
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
