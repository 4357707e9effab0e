"""Sums, products, quotients and powers. Stretched arguments are summed afterwards, for all rules."""

import cmath
import math

import torch

from chainrule.rules.book import opening, rule

PAIRS = ["r(3, 4), p(3, 4)", "r(3, 4), p(4)", "r(), p(2, 3)", "r(3, 1), p(1, 4)", "r(1, 3, 1), p(2, 1, 5)", "r(3), 2.0"]


@rule(torch.add, samples=[*PAIRS, "r(3, 1), r(1, 4), alpha=2"], elementwise=True, holomorphic=True)
def add(out, a, b, alpha=1):
    a.g = out.g
    b.g = out.g if alpha == 1 else alpha * out.g


@rule(torch.sub, samples=[*PAIRS, "r(3), r(3), alpha=2"], elementwise=True, holomorphic=True)
def sub(out, a, b, alpha=1):
    a.g = out.g
    b.g = -out.g if alpha == 1 else -alpha * out.g


@rule(torch.rsub, samples=["r(3, 4), r(4)", "r(3), 2.0"], elementwise=True, holomorphic=True)
def rsub(out, a, b, alpha=1):
    a.g = -out.g if alpha == 1 else -alpha * out.g
    b.g = out.g


@rule(torch.mul, samples=PAIRS, elementwise=True, holomorphic=True)
def mul(out, a, b):
    a.g = out.g * b
    b.g = out.g * a


@rule(torch.div, samples=PAIRS, elementwise=True, holomorphic=True)
def div(out, a, b, rounding_mode=None):
    if rounding_mode is not None:
        a.g = torch.zeros_like(out.g)
        b.g = torch.zeros_like(out.g)
        return
    a.g = out.g / b
    b.g = -out.g * out / b


@rule(torch.neg, samples=["r(3, 4)", "r()"], elementwise=True, holomorphic=True)
def neg(out, x):
    x.g = -out.g


@rule(torch.reciprocal, samples=["p(3, 4)"], elementwise=True, holomorphic=True)
def reciprocal(out, x):
    x.g = -out.g * out * out


@rule(torch.square, samples=["r(3, 4)"], elementwise=True, holomorphic=True)
def square(out, x):
    x.g = out.g * 2 * x


@rule(
    torch.pow,
    samples=["r(3, 4), 2", "r(3), 3", "p(3), 0.5", "p(3), -1", "r(3), 1", "r(3), 0", "p(3, 4), r(4)", "2.0, r(3)",
             "p(3), 2.5", "0.0, p(3)"],
    elementwise=True,
    holomorphic=True,
    note="0 ** 0 has gradient 0 towards the base, and 0 ** b towards the exponent",
)  # fmt: skip
def pow(out, a, b):
    if isinstance(b, torch.Tensor):
        grows = (b.real if b.is_complex() else b) >= 0
        if isinstance(a, torch.Tensor):
            a.g = torch.where(b == 0, 0.0, out.g * b * a ** (b - 1))
            b.g = torch.where((a == 0) & grows, 0.0, out.g * out * a.log())
        elif a == 0:
            b.g = torch.where(grows, 0.0, out.g * out * -math.inf)
        else:
            b.g = out.g * out * _log(a, out)
    elif b == 2:
        a.g = out.g * 2 * a
    elif b == 1:
        a.g = out.g
    elif b == 0:
        a.g = torch.zeros_like(out.g)
    elif b == 0.5:
        a.g = out.g / (2 * out)
    elif b == -1:
        a.g = -out.g * out * out
    else:
        a.g = out.g * b * a ** (b - 1)


def _log(number, out):
    """The logarithm of a number: among the real numbers, that of a negative one is NaN."""
    if out.is_complex():
        return cmath.log(number)
    return math.log(number) if number > 0 else math.nan


@opening(torch.float_power)
def float_power(input, exponent):
    if isinstance(input, torch.Tensor):
        input = input.cdouble() if input.is_complex() else input.double()
    if isinstance(exponent, torch.Tensor):
        exponent = exponent.cdouble() if exponent.is_complex() else exponent.double()
    return input**exponent


@opening(torch.Tensor.float_power)
def float_power_method(self, exponent):
    return float_power(self, exponent)


@rule(torch.xlogy, torch.special.xlogy, samples=["p(3, 4), p(4)", "p(3), 2.0", "2.0, p(3)"], elementwise=True)
def xlogy(out, a, b):
    if isinstance(a, torch.Tensor):
        a.g = torch.xlogy(out.g, b).masked_fill((a == 0) & (b <= 0), 0)
    b.g = out.g * a / b


@rule(torch.fmod, samples=["r(3, 4), p(3, 4)", "r(3, 4), p(4)", "r(3), 0.7"], elementwise=True)
def fmod(out, a, b):
    a.g = out.g
    if isinstance(b, torch.Tensor):
        b.g = -out.g * a.div(b, rounding_mode="trunc")


@rule(torch.remainder, samples=["r(3, 4), p(3, 4)", "r(3, 4), p(4)", "r(3), 0.7"], elementwise=True)
def remainder(out, a, b):
    a.g = out.g
    if isinstance(b, torch.Tensor):
        b.g = -out.g * (a // b)


@rule(torch.frac, samples=["r(3, 4)"], elementwise=True)
def frac(out, x):
    x.g = out.g


@rule(torch.frexp, samples=["r(3, 4)"], note="the exponent is a whole number and has no gradient")
def frexp(out, x):
    mantissa, exponent = out
    x.g = torch.ldexp(mantissa.g, -exponent)


@opening(torch.ldexp, torch.Tensor.ldexp)
def ldexp(input, other):
    return input * 2.0**other


@rule(torch.copysign, samples=["r(3, 4), r(4)", "r(3), -2.0"], elementwise=True,
      note="at 0 the gradient is 0; the giver of the sign has none")  # fmt: skip
def copysign(out, a, b):
    a.g = out.g * (out / a).masked_fill(a == 0, 0)
    b.g = None


@rule(torch.nextafter, samples=["r(3, 4), r(4)"], elementwise=True, note="where both are equal the gradient is 0")
def nextafter(out, a, b):
    a.g = torch.where(a != b, out.g, 0)
    b.g = None


@rule(
    torch.addcmul, samples=["r(3, 4), r(4), r(3, 1)", "r(3), r(3), r(3), value=0.5"], elementwise=True, holomorphic=True
)
def addcmul(out, x, a, b, value=1):
    x.g = out.g
    a.g = out.g * value * b
    b.g = out.g * value * a


@rule(
    torch.addcdiv, samples=["r(3, 4), r(4), p(3, 1)", "r(3), r(3), p(3), value=0.5"], elementwise=True, holomorphic=True
)
def addcdiv(out, x, a, b, value=1):
    x.g = out.g
    a.g = out.g * value / b
    b.g = -out.g * value * a / b**2


@rule(torch.lerp, samples=["r(3, 4), r(3, 4), 0.3", "r(3), r(3), u(3)"], elementwise=True, holomorphic=True)
def lerp(out, a, b, weight):
    a.g = out.g * (1 - weight)
    b.g = out.g * weight
    weight.g = out.g * (b - a)
