"""Special functions, each acting on every element by itself.

The derivatives are those of the Digital Library of Mathematical Functions (dlmf.nist.gov).
"""

import math

import torch

from chainrule.rules.book import rule


@rule(torch.erf, torch.special.erf, samples=["r(3, 4)"], elementwise=True)
def erf(out, x):
    x.g = out.g * (2 / math.sqrt(math.pi)) * (-(x**2)).exp()


@rule(torch.erfc, torch.special.erfc, samples=["r(3, 4)"], elementwise=True)
def erfc(out, x):
    x.g = -out.g * (2 / math.sqrt(math.pi)) * (-(x**2)).exp()


@rule(torch.erfinv, torch.special.erfinv, samples=["u(3, 4)"], elementwise=True)
def erfinv(out, x):
    x.g = out.g * (math.sqrt(math.pi) / 2) * (out**2).exp()


@rule(torch.special.erfcx, samples=["r(3, 4)"], elementwise=True, source="erfcx(x) = exp(x**2) * erfc(x)")
def erfcx(out, x):
    x.g = out.g * (2 * x * out - 2 / math.sqrt(math.pi))


@rule(torch.special.ndtr, samples=["r(3, 4)"], elementwise=True, note="the gradient is the normal density")
def ndtr(out, x):
    x.g = out.g * (-(x**2) / 2).exp() / math.sqrt(2 * math.pi)


@rule(torch.special.log_ndtr, samples=["r(3, 4)"], elementwise=True)
def log_ndtr(out, x):
    x.g = out.g * (-(x**2) / 2 - out).exp() / math.sqrt(2 * math.pi)


@rule(torch.special.ndtri, samples=["u(3, 4)"], elementwise=True)
def ndtri(out, x):
    x.g = out.g * math.sqrt(2 * math.pi) * (out**2 / 2).exp()


@rule(torch.logit, torch.special.logit, samples=["u(3, 4)", "u(3, 4), 0.3", "u(3, 4), eps=1e-6"], elementwise=True,
      note="beyond eps and 1 - eps the gradient is 0; without eps it is NaN outside of [0, 1], as the value is")  # fmt: skip
def logit(out, x, eps=None):
    low, beyond = (0, math.nan) if eps is None else (eps, 0)
    x.g = (out.g / (x * (1 - x))).masked_fill((x < low) | (x > 1 - low), beyond)


@rule(torch.lgamma, torch.special.gammaln, samples=["p(3, 4)", "r(3, 4)"], elementwise=True)
def lgamma(out, x):
    x.g = out.g * x.digamma()


@rule(torch.digamma, torch.special.digamma, torch.special.psi, samples=["p(3, 4)", "r(3, 4)"], elementwise=True)
def digamma(out, x):
    x.g = out.g * torch.polygamma(1, x)


@rule(torch.polygamma, torch.special.polygamma, samples=["1, p(3, 4)", "0, p(3)", "3, p(3)"], elementwise=True)
def polygamma(out, n, x):
    if not isinstance(n, int):  # the method: x.polygamma(n)
        n, x = x, n
    x.g = out.g * torch.polygamma(n + 1, x)


@rule(torch.mvlgamma, torch.special.multigammaln, samples=["1 + p(3, 4), 2", "2 + p(3, 4), 5", "p(3), 1"],
      elementwise=True, source="log Gamma_p(x) = const + sum over j < p of log Gamma(x - j / 2)")  # fmt: skip
def mvlgamma(out, x, p):
    slope = x.digamma()
    for j in range(1, p):
        slope = slope + (x - j / 2).digamma()
    x.g = out.g * slope


@rule(torch.i0, torch.special.i0, samples=["r(3, 4)"], elementwise=True)
def i0(out, x):
    x.g = out.g * torch.special.i1(x)


@rule(torch.special.i0e, samples=["r(3, 4)"], elementwise=True, source="i0e(x) = exp(-|x|) * i0(x)")
def i0e(out, x):
    x.g = out.g * (torch.special.i1e(x) - x.sign() * out)


@rule(torch.special.i1, samples=["r(3, 4)"], elementwise=True, note="at 0 the slope is 1/2")
def i1(out, x):
    x.g = out.g * torch.where(x.abs() > 0, torch.special.i0(x) - out / x, 0.5)


@rule(torch.special.i1e, samples=["r(3, 4)"], elementwise=True, note="at 0 the slope is 1/2",
      source="i1e(x) = exp(-|x|) * i1(x)")  # fmt: skip
def i1e(out, x):
    x.g = out.g * torch.where(x.abs() > 0, torch.special.i0e(x) - out * (x.sign() + 1 / x), 0.5)


@rule(torch.special.entr, samples=["p(3, 4)"], elementwise=True, source="entr(x) = -x * log(x)")
def entr(out, x):
    x.g = -out.g * (1 + x.log())


@rule(torch.special.zeta, samples=["2.5, 1 + p(3, 4)"], elementwise=True,
      note="towards the exponent there is no closed form")  # fmt: skip
def zeta(out, x, q):
    q.g = -out.g * x * torch.special.zeta(x + 1, q)


@rule(torch.special.xlog1py, samples=["p(3, 4), p(4)", "p(3), 2.0", "2.0, p(3)"], elementwise=True)
def xlog1py(out, a, b):
    if isinstance(a, torch.Tensor):
        a.g = torch.special.xlog1py(out.g, b).masked_fill((a == 0) & (b <= -1), 0)
    b.g = out.g * a / (b + 1)
