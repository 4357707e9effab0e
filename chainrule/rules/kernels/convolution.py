"""Convolutions and their transposes: one kernel for all three gradients."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import kernel, reached
from chainrule.rules.convolution import _batched, _each, _padding

aten = torch.ops.aten


def _step(out, x, source, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    """Leaves the gradients of weight and bias; gives that of `source`, which is `x` with a batch and a border."""
    n = weight.ndim - 2
    how = [list(_each(n, value)) for value in (stride, padding, dilation)]
    channels = None if bias is None else bias.shape
    asked = [reached(x), reached(weight), reached(bias)]
    source_g, weight_g, bias_g = aten.convolution_backward.default(
        _batched(out.g, n), source, weight, channels, *how, transposed, list(_each(n, output_padding)), groups, asked
    )
    if weight_g is not None:
        weight.g = weight_g
    if bias_g is not None:
        bias.g = bias_g
    return source_g


@kernel(F.conv1d, samples=["r(2, 3, 7), r(4, 3, 3), r(4)", "r(3, 7), r(4, 3, 3), r(4)", "r(2, 3, 7), r(4, 3, 4), padding='same', dilation=2"])  # fmt: skip
@kernel(F.conv2d, samples=["r(2, 3, 5, 6), r(4, 3, 3, 2), r(4)", "r(2, 4, 7, 6), r(6, 2, 3, 3), r(6), (2, 1), (1, 2), (1, 2), 2",
                           "r(2, 3, 5, 6), r(4, 3, 2, 3), None, 1, 'same', (2, 3)", "r(2, 3, 6, 7), r(4, 3, 3, 3), stride=2, padding='valid'"])  # fmt: skip
@kernel(F.conv3d, samples=["r(2, 2, 4, 3, 5), r(3, 2, 2, 2, 3), r(3)"])
def convolution(out, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    n = weight.ndim - 2
    padding, beyond = _padding(weight, padding, dilation)
    source = _batched(x, n)
    if any(beyond):  # "same" with an even kernel: the zero that is left over stands on the right
        source = F.pad(source, beyond)
    g = _step(out, x, source, weight, bias, stride, padding, dilation, False, 0, groups)
    if g is not None:
        g = F.pad(g, [-width for width in beyond]) if any(beyond) else g
        x.g = g if x.ndim == n + 2 else g.squeeze(0)


@kernel(F.conv_transpose1d, samples=["r(2, 3, 5), r(3, 4, 3), r(4)", "r(2, 4, 5), r(4, 3, 3), None, 3, 1, 2, 2, 2"])
@kernel(F.conv_transpose2d, samples=["r(2, 3, 4, 5), r(3, 4, 3, 2), r(4)", "r(2, 4, 4, 3), r(4, 3, 3, 3), r(6), (2, 3), (1, 0), (1, 2), 2, (1, 2)",
                                     "r(3, 4, 5), r(3, 4, 3, 2), r(4), padding=1"])  # fmt: skip
@kernel(F.conv_transpose3d, samples=["r(2, 2, 3, 2, 3), r(2, 3, 2, 2, 3), r(3)"])
def transposed(out, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    n = weight.ndim - 2
    g = _step(out, x, _batched(x, n), weight, bias, stride, padding, dilation, True, output_padding, groups)
    if g is not None:
        x.g = g if x.ndim == n + 2 else g.squeeze(0)
