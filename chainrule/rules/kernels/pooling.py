"""The largest of each window: the kernels take the indices that the forward kernels give. (The ordinary rules of
means over windows are kernels already.)"""

import torch

from chainrule.rules.book import kernel
from chainrule.rules.convolution import _each
from chainrule.rules.pooling import _ADAPTIVE_MAX, _MAX

aten = torch.ops.aten
_BACKWARD = {2: aten.max_pool2d_with_indices_backward.default, 3: aten.max_pool3d_with_indices_backward.default}
_ADAPTIVE_BACKWARD = {2: aten.adaptive_max_pool2d_backward.default, 3: aten.adaptive_max_pool3d_backward.default}


def _windows(n, kernel_size, stride, padding, dilation, ceil_mode):
    """The settings, as lists of a number for each axis of space."""
    settings = kernel_size, stride or kernel_size, padding, dilation
    return *(list(_each(n, value)) for value in settings), ceil_mode


@kernel(_MAX[1], samples=["r(2, 3, 7), 2", "r(3, 7), 3, 2, 1", "r(2, 3, 9), 3, 1, 0, 2, True"])
def max_pool1d(out, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    values, indices = out
    *lists, ceil_mode = _windows(1, kernel_size, stride, padding, dilation, ceil_mode)
    rows = [[before, *value] for before, value in zip((1, 1, 0, 1), lists, strict=True)]  # windows in a single row
    g, source, indices = (t.unsqueeze(-2) for t in (values.g, x, indices))
    x.g = _BACKWARD[2](g, source, *rows, ceil_mode, indices).squeeze(-2)


@kernel(_MAX[2], samples=["r(2, 3, 4, 6), 2", "r(3, 5, 7), (3, 2), (1, 2), 1", "r(2, 3, 7, 8), 3, 2, 1, (1, 2), True"])
def max_pool2d(out, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    values, indices = out
    x.g = _BACKWARD[2](values.g, x, *_windows(2, kernel_size, stride, padding, dilation, ceil_mode), indices)


@kernel(_MAX[3], samples=["r(2, 2, 4, 2, 6), 2", "r(2, 4, 5, 3), (3, 2, 2), 1, (1, 0, 1)"])
def max_pool3d(out, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    values, indices = out
    x.g = _BACKWARD[3](values.g, x, *_windows(3, kernel_size, stride, padding, dilation, ceil_mode), indices)


@kernel(_ADAPTIVE_MAX[2], samples=["r(2, 3, 7, 6), (3, None)", "r(3, 6, 5), 4"])
def adaptive_max_pool2d(out, x, output_size, return_indices=False):
    values, indices = out
    x.g = _ADAPTIVE_BACKWARD[2](values.g, x, indices)


@kernel(_ADAPTIVE_MAX[3], samples=["r(2, 2, 4, 3, 5), (3, 2, 4)", "r(2, 5, 3, 4), 2"])
def adaptive_max_pool3d(out, x, output_size, return_indices=False):
    values, indices = out
    x.g = _ADAPTIVE_BACKWARD[3](values.g, x, indices)
