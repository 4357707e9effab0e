"""Sums, products, quotients and powers. Stretched arguments are summed afterwards, for all rules."""

import math

import torch

from chainrule.rules.book import rule

PAIRS = ["r(3, 4), p(3, 4)", "r(3, 4), p(4)", "r(), p(2, 3)", "r(3, 1), p(1, 4)", "r(1, 3, 1), p(2, 1, 5)", "r(3), 2.0"]


@rule(torch.add, samples=[*PAIRS, "r(3, 1), r(1, 4), alpha=2"], elementwise=True)
def add(out, a, b, alpha=1):
    a.g = out.g
    b.g = out.g if alpha == 1 else alpha * out.g


@rule(torch.sub, samples=[*PAIRS, "r(3), r(3), alpha=2"], elementwise=True)
def sub(out, a, b, alpha=1):
    a.g = out.g
    b.g = -out.g if alpha == 1 else -alpha * out.g


@rule(torch.rsub, samples=["r(3, 4), r(4)", "r(3), 2.0"], elementwise=True)
def rsub(out, a, b, alpha=1):
    a.g = -out.g if alpha == 1 else -alpha * out.g
    b.g = out.g


@rule(torch.mul, samples=PAIRS, elementwise=True)
def mul(out, a, b):
    a.g = out.g * b
    b.g = out.g * a


@rule(torch.div, samples=PAIRS, elementwise=True)
def div(out, a, b, rounding_mode=None):
    if rounding_mode is not None:
        a.g = torch.zeros_like(out.g)
        b.g = torch.zeros_like(out.g)
        return
    a.g = out.g / b
    b.g = -out.g * out / b


@rule(torch.neg, samples=["r(3, 4)", "r()"], elementwise=True)
def neg(out, x):
    x.g = -out.g


@rule(torch.reciprocal, samples=["p(3, 4)"], elementwise=True)
def reciprocal(out, x):
    x.g = -out.g * out * out


@rule(torch.square, samples=["r(3, 4)"], elementwise=True)
def square(out, x):
    x.g = out.g * 2 * x


@rule(
    torch.pow,
    samples=[
        "r(3, 4), 2",
        "r(3), 3",
        "p(3), 0.5",
        "p(3), -1",
        "r(3), 1",
        "r(3), 0",
        "p(3, 4), r(4)",
        "2.0, r(3)",
        "p(3), 2.5",
    ],
    elementwise=True,
    note="0 ** 0 has gradient 0 towards the base",
)
def pow(out, a, b):
    if isinstance(b, torch.Tensor):
        if isinstance(a, torch.Tensor):
            a.g = torch.where(b == 0, 0.0, out.g * b * a ** (b - 1))
            b.g = torch.where((a == 0) & (b >= 0), 0.0, out.g * out * a.log())
        elif not a > 0:
            return NotImplemented
        else:
            b.g = out.g * out * math.log(a)
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
    return None


@rule(torch.xlogy, samples=["p(3, 4), p(4)", "p(3), 2.0"], elementwise=True)
def xlogy(out, a, b):
    if isinstance(b, torch.Tensor):
        a.g = torch.xlogy(out.g, b).masked_fill((a == 0) & (b <= 0), 0)
    elif not b > 0:
        return NotImplemented
    else:
        a.g = out.g * math.log(b)
    b.g = out.g * a / b
    return None


@rule(torch.addcmul, samples=["r(3, 4), r(4), r(3, 1)", "r(3), r(3), r(3), value=0.5"], elementwise=True)
def addcmul(out, x, a, b, value=1):
    x.g = out.g
    a.g = out.g * value * b
    b.g = out.g * value * a


@rule(torch.addcdiv, samples=["r(3, 4), r(4), p(3, 1)", "r(3), r(3), p(3), value=0.5"], elementwise=True)
def addcdiv(out, x, a, b, value=1):
    x.g = out.g
    a.g = out.g * value / b
    b.g = -out.g * value * a / b**2


@rule(torch.lerp, samples=["r(3, 4), r(3, 4), 0.3", "r(3), r(3), u(3)"], elementwise=True)
def lerp(out, a, b, weight):
    a.g = out.g * (1 - weight)
    b.g = out.g * weight
    weight.g = out.g * (b - a)
