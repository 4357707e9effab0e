"""Exponentials, logarithms, roots and trigonometric functions, each acting on every element by itself."""

import math

import torch

from chainrule.rules.book import rule


@rule(torch.exp, samples=["r(3, 4)", "r()", "r(0, 3)"], elementwise=True)
def exp(out, x):
    x.g = out.g * out


@rule(torch.expm1, samples=["r(3, 4)"], elementwise=True)
def expm1(out, x):
    x.g = out.g * (out + 1)


@rule(torch.exp2, samples=["r(3, 4)"], elementwise=True)
def exp2(out, x):
    x.g = out.g * out * math.log(2)


@rule(torch.log, samples=["p(3, 4)"], elementwise=True)
def log(out, x):
    x.g = out.g / x


@rule(torch.log1p, samples=["p(3, 4)"], elementwise=True)
def log1p(out, x):
    x.g = out.g / (1 + x)


@rule(torch.log2, samples=["p(3, 4)"], elementwise=True)
def log2(out, x):
    x.g = out.g / (x * math.log(2))


@rule(torch.log10, samples=["p(3, 4)"], elementwise=True)
def log10(out, x):
    x.g = out.g / (x * math.log(10))


@rule(torch.sqrt, samples=["p(3, 4)"], elementwise=True)
def sqrt(out, x):
    x.g = out.g / (2 * out)


@rule(torch.rsqrt, samples=["p(3, 4)"], elementwise=True)
def rsqrt(out, x):
    x.g = -out.g * out**3 / 2


@rule(torch.abs, samples=["r(3, 4)"], elementwise=True, note="at 0 the gradient is 0")
def abs(out, x):
    x.g = out.g * x.sign()


@rule(torch.sin, samples=["r(3, 4)"], elementwise=True)
def sin(out, x):
    x.g = out.g * x.cos()


@rule(torch.cos, samples=["r(3, 4)"], elementwise=True)
def cos(out, x):
    x.g = -out.g * x.sin()


@rule(torch.tan, samples=["r(3, 4)"], elementwise=True)
def tan(out, x):
    x.g = out.g * (1 + out**2)


@rule(torch.tanh, samples=["r(3, 4)"], elementwise=True)
def tanh(out, x):
    x.g = out.g * (1 - out**2)


@rule(torch.asin, samples=["u(3, 4)"], elementwise=True)
def asin(out, x):
    x.g = out.g * (1 - x**2).rsqrt()


@rule(torch.acos, samples=["u(3, 4)"], elementwise=True)
def acos(out, x):
    x.g = -out.g * (1 - x**2).rsqrt()


@rule(torch.atan, samples=["r(3, 4)"], elementwise=True)
def atan(out, x):
    x.g = out.g / (1 + x**2)


@rule(torch.sinh, samples=["r(3, 4)"], elementwise=True)
def sinh(out, x):
    x.g = out.g * x.cosh()


@rule(torch.cosh, samples=["r(3, 4)"], elementwise=True)
def cosh(out, x):
    x.g = out.g * x.sinh()


@rule(torch.erf, samples=["r(3, 4)"], elementwise=True)
def erf(out, x):
    x.g = out.g * (2 / math.sqrt(math.pi)) * (-(x**2)).exp()
