"""Exponentials, logarithms, roots and trigonometric functions, each acting on every element by itself."""

import math

import torch

from chainrule.rules.book import rule


@rule(torch.exp, samples=["r(3, 4)", "r()", "r(0, 3)"], elementwise=True, holomorphic=True)
def exp(out, x):
    x.g = out.g * out


@rule(torch.expm1, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def expm1(out, x):
    x.g = out.g * (out + 1)


@rule(torch.exp2, torch.special.exp2, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def exp2(out, x):
    x.g = out.g * out * math.log(2)


@rule(torch.log, samples=["p(3, 4)"], elementwise=True, holomorphic=True)
def log(out, x):
    x.g = out.g / x


@rule(torch.log1p, samples=["p(3, 4)"], elementwise=True, holomorphic=True)
def log1p(out, x):
    x.g = out.g / (1 + x)


@rule(torch.log2, samples=["p(3, 4)"], elementwise=True, holomorphic=True)
def log2(out, x):
    x.g = out.g / (x * math.log(2))


@rule(torch.log10, samples=["p(3, 4)"], elementwise=True, holomorphic=True)
def log10(out, x):
    x.g = out.g / (x * math.log(10))


@rule(torch.sqrt, samples=["p(3, 4)"], elementwise=True, holomorphic=True)
def sqrt(out, x):
    x.g = out.g / (2 * out)


@rule(torch.rsqrt, samples=["p(3, 4)"], elementwise=True, holomorphic=True)
def rsqrt(out, x):
    x.g = -out.g * out**3 / 2


@rule(torch.abs, samples=["r(3, 4)", "z(3, 4)"], elementwise=True, complex=True, note="at 0 the gradient is 0")
def abs(out, x):
    x.g = out.g * (x.sgn() if x.is_complex() else x.sign())


@rule(torch.sin, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def sin(out, x):
    x.g = out.g * x.cos()


@rule(torch.cos, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def cos(out, x):
    x.g = -out.g * x.sin()


@rule(torch.tan, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def tan(out, x):
    x.g = out.g * (1 + out**2)


@rule(torch.tanh, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def tanh(out, x):
    x.g = out.g * (1 - out**2)


@rule(torch.asin, samples=["u(3, 4)"], elementwise=True, holomorphic=True)
def asin(out, x):
    x.g = out.g * (1 - x**2).rsqrt()


@rule(torch.acos, samples=["u(3, 4)"], elementwise=True, holomorphic=True)
def acos(out, x):
    x.g = -out.g * (1 - x**2).rsqrt()


@rule(torch.atan, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def atan(out, x):
    x.g = out.g / (1 + x**2)


@rule(torch.sinh, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def sinh(out, x):
    x.g = out.g * x.cosh()


@rule(torch.cosh, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def cosh(out, x):
    x.g = out.g * x.sinh()


@rule(torch.asinh, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def asinh(out, x):
    x.g = out.g * (x**2 + 1).rsqrt()


@rule(torch.acosh, samples=["1 + p(3, 4)"], elementwise=True, holomorphic=True)
def acosh(out, x):
    if x.is_complex():
        x.g = out.g * (x + 1).rsqrt() * (x - 1).rsqrt()  # the root of a product is another branch
    else:
        x.g = out.g * (x**2 - 1).rsqrt()


@rule(torch.atanh, samples=["u(3, 4)"], elementwise=True, holomorphic=True)
def atanh(out, x):
    x.g = out.g / (1 - x**2)


@rule(torch.atan2, torch.arctan2, samples=["r(3, 4), r(3, 4)", "r(3, 4), p(4)"], elementwise=True,
      note="at the origin the gradient is 0")  # fmt: skip
def atan2(out, a, b):
    square = a**2 + b**2
    g = (out.g / square).masked_fill(square == 0, 0)
    a.g = g * b
    b.g = -g * a


@rule(torch.hypot, samples=["r(3, 4), r(3, 4)", "r(3, 4), p(4)"], elementwise=True)
def hypot(out, a, b):
    a.g = out.g * a / out
    b.g = out.g * b / out


@rule(torch.sinc, torch.special.sinc, samples=["r(3, 4)"], elementwise=True, holomorphic=True,
      note="at 0 the gradient is 0")  # fmt: skip
def sinc(out, x):
    x.g = torch.where(x == 0, 0, out.g * ((math.pi * x).cos() - out) / x)


@rule(torch.deg2rad, samples=["r(3, 4)"], elementwise=True)
def deg2rad(out, x):
    x.g = out.g * (math.pi / 180)


@rule(torch.rad2deg, samples=["r(3, 4)"], elementwise=True)
def rad2deg(out, x):
    x.g = out.g * (180 / math.pi)


@rule(torch.logaddexp, samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)"], elementwise=True, holomorphic=True)
def logaddexp(out, a, b):
    a.g = out.g * (a - b).sigmoid()
    b.g = out.g * (b - a).sigmoid()


@rule(torch.logaddexp2, samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)"], elementwise=True)
def logaddexp2(out, a, b):
    a.g = out.g / (1 + 2 ** (b - a))
    b.g = out.g / (1 + 2 ** (a - b))
