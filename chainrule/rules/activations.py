"""Activation functions."""

import math

import torch
import torch.nn.functional as F

from chainrule.rules.book import rule


@rule(torch.relu, samples=["r(3, 4)", "r()", "r(0, 3)"], elementwise=True, note="at 0 the gradient is 0")
def relu(out, x):
    x.g = out.g * (out > 0)


@rule(F.relu6, samples=["4 * r(3, 4)"], elementwise=True, note="at 0 and at 6 the gradient is 0")
def relu6(out, x):
    x.g = out.g * ((x > 0) & (x < 6))


@rule(F.leaky_relu, samples=["r(3, 4)", "r(3, 4), 0.2"], elementwise=True, note="at 0 the slope is the leaky one")
def leaky_relu(out, x, negative_slope=0.01):
    x.g = torch.where(x > 0, out.g, out.g * negative_slope)


@rule(torch.sigmoid, samples=["r(3, 4)", "r()"], elementwise=True)
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


@rule(F.elu, samples=["r(3, 4)", "r(3, 4), 0.5"], elementwise=True)
def elu(out, x, alpha=1.0):
    x.g = torch.where(x > 0, out.g, out.g * alpha * x.exp())


@rule(F.logsigmoid, samples=["r(3, 4)"], elementwise=True)
def log_sigmoid(out, x):
    x.g = out.g * (-x).sigmoid()


@rule(F.softmax, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(2, 3, 4), dim=-1", "r(5), 0"])
def softmax(out, x, dim=None, dtype=None):
    x.g = out * (out.g - (out.g * out).sum(dim, keepdim=True))


@rule(F.log_softmax, samples=["r(3, 4), 1", "r(3, 4), dim=0", "r(2, 3, 4), dim=-1"])
def log_softmax(out, x, dim=None, dtype=None):
    x.g = out.g - out.exp() * out.g.sum(dim, keepdim=True)
