"""Values that are cut off at bounds.

The kernels give a bound no gradient, and clamp has the slope 1 there: they are given the next number beyond it.
"""

import math

import numpy as np
import torch

from chainrule.rules.book import kernel

aten = torch.ops.aten
_NUMBERS = {torch.float32: np.float32, torch.float64: np.float64}


def _beyond(bound, x, side):
    """The next number of the dtype of `x` beyond `bound`."""
    number = _NUMBERS[x.dtype]
    return float(np.nextafter(number(bound), number(side)))


def _numbers(x, *bounds):
    return x.dtype in _NUMBERS and all(isinstance(bound, int | float) for bound in bounds if bound is not None)


@kernel(torch.clamp, samples=["r(3, 4), -0.5, 0.5", "r(3, 4), min=0", "r(3, 4), max=0.2", "i(5, 20).double() - 2, -1, 1",
                              "i(5, 20).double() - 2, min=0", "i(5, 20).double() - 2, max=0"])  # fmt: skip
def clamp(out, x, min=None, max=None):
    if not _numbers(x, min, max):
        return NotImplemented
    if max is None:
        x.g = aten.threshold_backward.default(out.g, x, _beyond(min, x, -math.inf))
        return None
    below = -math.inf if min is None else _beyond(min, x, -math.inf)
    x.g = aten.hardtanh_backward.default(out.g, x, below, _beyond(max, x, math.inf))
    return None


@kernel(torch.clamp_min, samples=["r(3, 4), 0.0", "i(5, 20).double() - 2, 0"])
def clamp_min(out, x, min):
    return clamp(out, x, min, None)


@kernel(torch.clamp_max, samples=["r(3, 4), 0.0", "i(5, 20).double() - 2, 0"])
def clamp_max(out, x, max):
    return clamp(out, x, None, max)
