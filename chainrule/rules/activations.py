"""Activation functions."""

import math

import torch
import torch.nn.functional as F

from chainrule.rules.book import opening, rule
from chainrule.rules.broadcast import unbroadcast


@rule(torch.relu, samples=["r(3, 4)", "r()", "r(0, 3)"], elementwise=True, note="at 0 the gradient is 0")
def relu(out, x):
    x.g = out.g.masked_fill(out <= 0, 0)


@rule(F.relu6, samples=["4 * r(3, 4)"], elementwise=True, note="at 0 and at 6 the gradient is 0")
def relu6(out, x):
    x.g = out.g.masked_fill((x <= 0) | (x >= 6), 0)


@rule(F.hardtanh, samples=["2 * r(3, 4)", "r(3, 4), -0.5, max_val=0.2"], elementwise=True,
      note="at the bounds the gradient is 0")  # fmt: skip
def hardtanh(out, x, min_val=-1.0, max_val=1.0):
    x.g = out.g.masked_fill((x <= min_val) | (x >= max_val), 0)


@rule(torch.threshold, samples=["r(3, 4), 0.1, 20", "r(3, 4), threshold=-0.5, value=0.0"], elementwise=True,
      note="at the threshold the gradient is 0")  # fmt: skip
def threshold(out, x, threshold, value):
    x.g = out.g.masked_fill(x <= threshold, 0)


@rule(F.hardshrink, F.softshrink, samples=["r(3, 4)", "r(3, 4), 0.7", "r(3, 4), lambd=0.0"], elementwise=True,
      note="up to lambd, and there, the gradient is 0")  # fmt: skip
def shrink(out, x, lambd=0.5):
    x.g = out.g.masked_fill(x.abs() <= lambd, 0)


@opening(F.hardsigmoid)
def hardsigmoid(input, inplace=False):
    y = F.relu6(input + 3) / 6
    return input.copy_(y) if inplace else y


@rule(F.hardswish, samples=["4 * r(3, 4)"], elementwise=True, note="at -3 the slope is 0, at 3 it is 1")
def hardswish(out, x):
    x.g = torch.where(x < 3, out.g * (x / 3 + 0.5), out.g).masked_fill(x <= -3, 0)


@rule(F.leaky_relu, samples=["r(3, 4)", "r(3, 4), 0.2"], elementwise=True, note="at 0 the slope is the leaky one")
def leaky_relu(out, x, negative_slope=0.01):
    x.g = torch.where(x > 0, out.g, out.g * negative_slope)


@rule(F.prelu, samples=["r(2, 3, 4), r(3)", "r(3, 4), r(1)", "r(3, 4), r()", "r(5), r(1)", "r(), r(1)"],
      note="at 0 the slope is the weight")  # fmt: skip
def prelu(out, x, weight):
    slope = weight.reshape((1, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else ())
    x.g = torch.where(x > 0, out.g, out.g * slope)
    weight.g = unbroadcast(torch.where(x > 0, 0, out.g * x), slope).reshape(weight.shape)


@rule(torch.sigmoid, samples=["r(3, 4)", "r()"], elementwise=True, holomorphic=True)
def sigmoid(out, x):
    x.g = out.g * out * (1 - out)


@rule(F.silu, samples=["r(3, 4)"], elementwise=True)
def silu(out, x):
    s = x.sigmoid()
    x.g = out.g * s * (1 + x * (1 - s))


@rule(F.gelu, samples=["r(3, 4)", "r(3, 4), approximate='tanh'"], elementwise=True)
def gelu(out, x, approximate="none"):
    if approximate == "tanh":
        t = (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        x.g = out.g * ((1 + t) / 2 + x * (1 - t**2) * slope / 2)
    else:
        below = (1 + (x / math.sqrt(2)).erf()) / 2
        density = (-(x**2) / 2).exp() / math.sqrt(2 * math.pi)
        x.g = out.g * (below + x * density)


@rule(F.softplus, samples=["r(3, 4)", "9 * r(3, 4), 2.0, 5.0"], elementwise=True,
      note="above the threshold it is the identity")  # fmt: skip
def softplus(out, x, beta=1, threshold=20):
    z = x if beta == 1 else beta * x
    x.g = torch.where(z > threshold, out.g, out.g * z.sigmoid())


@rule(F.mish, samples=["r(3, 4)"], elementwise=True, source="mish(x) = x * tanh(softplus(x)), Misra (2019)")
def mish(out, x):
    t = F.softplus(x).tanh()
    x.g = out.g * (t + x * (1 - t**2) * x.sigmoid())


@rule(F.elu, samples=["r(3, 4)", "r(3, 4), 0.5"], elementwise=True)
def elu(out, x, alpha=1.0):
    x.g = torch.where(x <= 0, out.g * alpha * x.exp(), out.g)


@rule(F.celu, samples=["r(3, 4)", "r(3, 4), alpha=0.5"], elementwise=True)
def celu(out, x, alpha=1.0):
    x.g = torch.where(x <= 0, out.g * (x / alpha).exp(), out.g)


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@rule(F.selu, samples=["r(3, 4)"], elementwise=True,
      source="Klambauer et al. (2017), Self-normalizing neural networks, equation 2")  # fmt: skip
def selu(out, x):
    x.g = SELU_SCALE * torch.where(x <= 0, out.g * SELU_ALPHA * x.exp(), out.g)


@rule(F.glu, samples=["r(3, 4)", "r(4, 3), 0", "r(2, 6, 3), dim=1"])
def glu(out, x, dim=-1):
    a, b = x.chunk(2, dim)
    s = b.sigmoid()
    x.g = torch.cat([out.g * s, out.g * a * s * (1 - s)], dim)


@rule(F.logsigmoid, samples=["r(3, 4)"], elementwise=True)
def log_sigmoid(out, x):
    x.g = out.g * (-x).sigmoid()


@rule(F.softmax, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(2, 3, 4), dim=-1", "r(5), 0"])
def softmax(out, x, dim=None, dtype=None):
    x.g = out * (out.g - (out.g * out).sum(dim, keepdim=True))


@rule(F.log_softmax, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(2, 3, 4), dim=-1"])
def log_softmax(out, x, dim=None, dtype=None):
    x.g = out.g - out.exp() * out.g.sum(dim, keepdim=True)
