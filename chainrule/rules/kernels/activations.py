"""Activation functions, and softmax."""

import torch
import torch.nn.functional as F

from chainrule.rules.activations import SELU_ALPHA, SELU_SCALE
from chainrule.rules.book import KERNELS, kernel, opening, reached
from chainrule.rules.broadcast import unbroadcast

aten = torch.ops.aten


@kernel(torch.relu, samples=["r(3, 4)", "r()", "r(0, 3)"])
def relu(out, x):
    x.g = aten.threshold_backward.default(out.g, out, 0)


@kernel(torch.threshold, samples=["r(3, 4), 0.1, 20"])
def threshold(out, x, threshold, value):
    x.g = aten.threshold_backward.default(out.g, x, threshold)


@kernel(F.relu6, samples=["4 * r(3, 4)"])
def relu6(out, x):
    x.g = aten.hardtanh_backward.default(out.g, x, 0, 6)


@kernel(F.hardtanh, samples=["2 * r(3, 4)", "r(3, 4), -0.5, max_val=0.2"])
def hardtanh(out, x, min_val=-1.0, max_val=1.0):
    x.g = aten.hardtanh_backward.default(out.g, x, min_val, max_val)


@kernel(F.hardshrink, samples=["r(3, 4)", "r(3, 4), 0.7"])
def hardshrink(out, x, lambd=0.5):
    x.g = aten.hardshrink_backward.default(out.g, x, lambd)


@kernel(F.softshrink, samples=["r(3, 4)", "r(3, 4), 0.7"])
def softshrink(out, x, lambd=0.5):
    x.g = aten.softshrink_backward.default(out.g, x, lambd)


@kernel(F.hardswish, samples=["4 * r(3, 4)"])
def hardswish(out, x):
    x.g = aten.hardswish_backward.default(out.g, x)


@kernel(F.hardsigmoid, samples=["4 * r(3, 4)"])
def hardsigmoid(out, x):
    x.g = aten.hardsigmoid_backward.default(out.g, x)


@opening(F.hardsigmoid, book=KERNELS)
def hardsigmoid_whole(input, inplace=False):
    return NotImplemented


@kernel(F.leaky_relu, samples=["r(3, 4)", "r(3, 4), 0.2"])
def leaky_relu(out, x, negative_slope=0.01):
    x.g = aten.leaky_relu_backward.default(out.g, x, negative_slope, False)


@kernel(F.prelu, samples=["r(2, 3, 4), r(3)", "r(3, 4), r(1)", "r(5), r(1)"])
def prelu(out, x, weight):
    by_channel = weight.reshape([1, -1, *[1] * (x.ndim - 2)] if x.ndim > 1 else weight.shape)
    x_g, slope_g = aten._prelu_kernel_backward.default(out.g, x, by_channel)
    x.g = x_g
    if reached(weight):
        weight.g = unbroadcast(slope_g, by_channel).reshape(weight.shape)


@kernel(F.elu, samples=["r(3, 4)", "r(3, 4), 0.5"])
def elu(out, x, alpha=1.0):
    x.g = aten.elu_backward.default(out.g, alpha, 1, 1, False, x)


@kernel(F.celu, samples=["r(3, 4)", "r(3, 4), alpha=0.5"])
def celu(out, x, alpha=1.0):
    x.g = aten.elu_backward.default(out.g, alpha, 1, 1 / alpha, False, x)


@kernel(F.selu, samples=["r(3, 4)"])
def selu(out, x):
    x.g = aten.elu_backward.default(out.g, SELU_ALPHA, SELU_SCALE, 1, False, x)


@kernel(torch.sigmoid, samples=["r(3, 4)", "r()"])
def sigmoid(out, x):
    x.g = aten.sigmoid_backward.default(out.g, out)


@kernel(torch.tanh, samples=["r(3, 4)", "r()"])
def tanh(out, x):
    x.g = aten.tanh_backward.default(out.g, out)


@kernel(F.silu, samples=["r(3, 4)"])
def silu(out, x):
    x.g = aten.silu_backward.default(out.g, x)


@kernel(F.mish, samples=["r(3, 4)"])
def mish(out, x):
    x.g = aten.mish_backward.default(out.g, x)


@kernel(F.gelu, samples=["r(3, 4)", "r(3, 4), approximate='tanh'"])
def gelu(out, x, approximate="none"):
    x.g = aten.gelu_backward.default(out.g, x, approximate=approximate)


@kernel(F.softplus, samples=["r(3, 4)", "9 * r(3, 4), 2.0, 5.0"])
def softplus(out, x, beta=1, threshold=20):
    x.g = aten.softplus_backward.default(out.g, x, beta, threshold)


@kernel(F.glu, samples=["r(3, 4)", "r(4, 3), 0", "r(2, 6, 3), dim=1"])
def glu(out, x, dim=-1):
    x.g = aten.glu_backward.default(out.g, x, dim)


@kernel(F.softmax, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(2, 3, 4), dim=-1", "r(5), 0"])
def softmax(out, x, dim=None, dtype=None):
    x.g = aten._softmax_backward_data.default(out.g, out, dim, out.dtype)


@kernel(F.log_softmax, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(2, 3, 4), dim=-1"])
def log_softmax(out, x, dim=None, dtype=None):
    x.g = aten._log_softmax_backward_data.default(out.g, out, dim, out.dtype)
