"""Complex numbers: parts, polar form, conjugates. The gradient of a real loss towards z = x + iy is dL/dx + i dL/dy.

The rules of this file are written for complex numbers; a real argument gets the real part of what they leave.
"""

import torch

from chainrule.rules.book import rule


@rule(torch.real, samples=["z(3, 4)"], elementwise=True, complex=True)
def real(out, z):
    z.g = out.g


@rule(torch.imag, samples=["z(3, 4)"], elementwise=True, complex=True)
def imag(out, z):
    z.g = 1j * out.g


@rule(torch.conj, torch.conj_physical, samples=["z(3, 4)", "r(3, 4)"], elementwise=True, complex=True)
def conj(out, z):
    z.g = out.g.conj()


@rule(torch.resolve_conj, torch.resolve_neg, samples=["z(3, 4)", "r(3, 4)"], elementwise=True, complex=True)
def resolved(out, z):
    z.g = out.g


@rule(torch.Tensor.mH, torch.Tensor.H, torch.adjoint, samples=["z(3, 4)", "r(3, 4)"], complex=True)
def adjoint(out, z):
    z.g = out.g.mH


@rule(torch.complex, samples=["r(3, 4), r(3, 4)", "r(3, 4), r(4)"], elementwise=True, complex=True)
def complex(out, real, imag):
    real.g = out.g.real
    imag.g = out.g.imag


@rule(torch.polar, samples=["p(3, 4), r(3, 4)", "p(3, 4), r(4)"], elementwise=True, complex=True,
      note="at radius 0 the radius gets no gradient")  # fmt: skip
def polar(out, abs, angle):
    abs.g = (out.g * out.sgn().conj()).real
    angle.g = (out.g * out.conj()).imag


@rule(torch.angle, samples=["z(3, 4)"], elementwise=True, complex=True, note="at 0 the gradient is 0")
def angle(out, z):
    z.g = torch.where(z == 0, 0, 1j * out.g / z.conj()) if z.is_complex() else None


@rule(torch.sgn, samples=["z(3, 4)"], elementwise=True, complex=True,
      note="z / abs(z): only the angle counts; at 0 the gradient is 0; real numbers have none")  # fmt: skip
def sgn(out, z):
    z.g = torch.where(z == 0, 0, 1j * out * (out.g * out.conj()).imag / z.abs()) if z.is_complex() else None


@rule(torch.view_as_real, samples=["z(3, 4)"], complex=True)
def view_as_real(out, z):
    z.g = torch.view_as_complex(out.g.contiguous())


@rule(torch.view_as_complex, samples=["r(3, 4, 2)", "r(2)"], complex=True)
def view_as_complex(out, x):
    x.g = torch.view_as_real(out.g.resolve_conj())


@rule(
    torch.Tensor.cdouble,  # type: ignore[attr-defined]
    torch.Tensor.cfloat,  # type: ignore[attr-defined]
    samples=["r(3, 4)", "z(3, 4)"],
    complex=True,
)
def to_complex(out, x, memory_format=None):
    x.g = out.g


@rule(torch.vdot, samples=["z(4), z(4)", "r(4), r(4)"], complex=True)
def vdot(out, a, b):
    a.g = out.g.conj() * b
    b.g = out.g * a
