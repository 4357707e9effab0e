"""Complex numbers: real losses through complex intermediates, complex constants and complex inputs, against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import assert_close, run_emitted
from torch import Tensor

import chainrule as cr

Z = torch.complex128


def c(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=Z)


def r(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def loss_of(z: Tensor) -> Tensor:
    """A real number that depends on both parts of `z` and on its angle."""
    weights = torch.linspace(0.5, 1.5, z.numel(), dtype=torch.float64).reshape(z.shape)
    if not z.is_complex():
        return (z * weights).sum()
    return (z.real * weights).sum() + (z.imag * weights.cos()).sum() + (z * z.conj()).real.mean()


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name)
    for name in """neg square reciprocal exp expm1 exp2 log log10 log2 log1p sqrt rsqrt sin cos tan tanh sinh cosh asin
    acos atan asinh acosh atanh sinc sigmoid abs angle sgn real imag conj conj_physical resolve_conj adjoint
    view_as_real sum mean prod""".split()  # noqa: SIM905
} | {
    "pow 2": lambda z: z**2, "pow 3": lambda z: z**3, "pow -1": lambda z: z**-1, "pow 0.5": lambda z: z**0.5,
    "pow 1.5": lambda z: z**1.5, "2 ** z": lambda z: 2**z,
    "complex power": lambda z: z ** (1 + 0.5j), "complex base": lambda z: (1 + 0.5j) ** z,
    "scaled": lambda z: (2 - 1j) * z / (1 + 1j) + 1j, "from the left": lambda z: 1j / z, "alpha": lambda z: torch.add(z, z, alpha=2j),
    "sum dim": lambda z: z.sum(0), "mean dim": lambda z: z.mean(-1, keepdim=True), "cumsum": lambda z: z.cumsum(0),
    "cumprod": lambda z: z.cumprod(1), "var": lambda z: z.var(0), "std": lambda z: z.std(),
    "reshape": lambda z: z.reshape(4, 3) ** 2, "view": lambda z: z.view(-1).exp(), "transpose": lambda z: z.transpose(0, 1) @ z,
    "mT": lambda z: z @ z.mT, "mH": lambda z: z @ z.mH, "T": lambda z: z.T.exp(), "H": lambda z: z.H.exp(),
    "getitem": lambda z: z[1:, [0, 2]] ** 2, "row": lambda z: z[1] * z[0], "mask": lambda z: z[z.real > 0].exp(),
    "flip": lambda z: z.flip(0) * z, "roll": lambda z: z.roll(1, 1) * z, "expand": lambda z: z[:, :1].expand(3, 4) * z,
    "cat": lambda z: torch.cat([z, z.exp()], 1), "stack": lambda z: torch.stack([z, z * z]).prod(0),
    "chunk": lambda z: torch.mul(*z.chunk(2, 1)), "unbind": lambda z: torch.add(*z.unbind(0)[:2]),
    "unsqueeze": lambda z: z.unsqueeze(1) * z, "repeat": lambda z: z.repeat(2, 1).cumsum(0), "permute": lambda z: z.permute(1, 0) ** 2,
    "where": lambda z: torch.where(z.imag > 0, z, z.conj() ** 2), "masked_fill": lambda z: z.masked_fill(z.real > 0, 1j) ** 2,
    "gather": lambda z: z.gather(1, torch.tensor([[0, 1], [2, 2], [3, 0]])) ** 2, "index_select": lambda z: z.index_select(0, torch.tensor([0, 0, 2])) ** 2,
    "diagonal": lambda z: z.diagonal() ** 2, "tril": lambda z: z.tril().exp(), "triu": lambda z: z.triu(1) ** 2,
    "to": lambda z: z.to(torch.complex64).to(Z), "abs squared": lambda z: z.abs() ** 2, "parts": lambda z: torch.complex(z.imag, z.real),
    "polar": lambda z: torch.polar(z.abs(), 2 * z.angle()), "pairs": lambda z: torch.view_as_complex(torch.view_as_real(z) ** 2),
    "logaddexp": lambda z: torch.logaddexp(z, 2 * z), "fft": torch.fft.fft, "fft of half": lambda z: torch.fft.rfft(z.real),
    "ifftn": torch.fft.ifftn, "irfft": torch.fft.irfft, "hfft": torch.fft.hfft, "fftshift": torch.fft.fftshift,
    "filter": lambda z: torch.fft.ifft(torch.fft.fft(z) * torch.linspace(1, 2, 4, dtype=torch.float64)),
}  # fmt: skip

BINARY: dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = {
    **{n: (getattr(torch, n), (3, 4), (3, 4)) for n in ("add", "sub", "mul", "div", "pow", "rsub")},
    "mul broadcast": (torch.mul, (3, 4), (4,)), "div broadcast": (torch.div, (3, 1), (2, 1, 4)),
    "matmul": (torch.matmul, (3, 4), (4, 2)), "matmul batch": (torch.matmul, (2, 3, 4), (4, 2)),
    "matmul vector": (torch.matmul, (3, 4), (4,)), "vector matmul": (torch.matmul, (4,), (2, 4, 3)), "mm": (torch.mm, (3, 4), (4, 2)), "bmm": (torch.bmm, (2, 3, 4), (2, 4, 2)),
    "mv": (torch.mv, (3, 4), (4,)), "dot": (torch.dot, (4,), (4,)), "vdot": (torch.vdot, (4,), (4,)), "outer": (torch.outer, (3,), (4,)),
    "linear": (torch.nn.functional.linear, (3, 4), (2, 4)), "einsum": (lambda a, b: torch.einsum("ij,kj->ik", a, b), (3, 4), (2, 4)),
    "lerp": (lambda a, b: torch.lerp(a, b, 0.3), (3, 4), (3, 4)), "addcmul": (lambda a, b: torch.addcmul(a, a, b, value=2), (3, 4), (3, 4)),
    "addcdiv": (lambda a, b: torch.addcdiv(a, a, b), (3, 4), (3, 4)), "addmm": (lambda a, b: torch.addmm(a @ b, a, b), (3, 4), (4, 3)),
    "where": (lambda a, b: torch.where(a.real > 0, a, b), (3, 4), (3, 4)), "cat": (lambda a, b: torch.cat([a, b]) ** 2, (3, 4), (2, 4)),
}  # fmt: skip


def assert_as_autograd(forward: Callable[..., Tensor], *inputs: Tensor) -> cr.Derivation:
    d = cr.derive(forward, *inputs, wrt=None)
    assert d.fallbacks == []
    leaves = [t.clone().requires_grad_() for t in inputs]
    truth = torch.autograd.grad(forward(*leaves), leaves, allow_unused=True)
    ours = {id(t): g for t, g in d.pairs()}
    for given, right in zip(inputs, truth, strict=True):
        assert_close(ours[id(given)], right)
    _, emitted = run_emitted(d, *(d[name].value for name in d.inputs))
    for name, gradient in d.grads.items():
        assert_close(emitted[name], gradient)
    return d


@pytest.mark.parametrize("name", UNARY)
def test_complex_inputs(name: str) -> None:
    assert_as_autograd(lambda z: loss_of(UNARY[name](z)), c(3, 4))


@pytest.mark.parametrize("name", UNARY)
def test_real_inputs_through_complex_intermediates(name: str) -> None:
    constant = c(3, 4)
    assert_as_autograd(lambda x, y: loss_of(UNARY[name](torch.complex(x, y) * constant)), r(3, 4), r(3, 4))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("kinds", ["complex and complex", "real and complex", "complex and real"])
def test_two_operands(name: str, kinds: str) -> None:
    function, *shapes = BINARY[name]
    first, _, second = kinds.partition(" and ")
    if first != second and name not in ("add", "sub", "mul", "div", "pow", "mul broadcast", "div broadcast"):
        return  # torch wants one dtype
    a, b = (c(*s) if kind == "complex" else r(*s).abs() for kind, s in zip((first, second), shapes, strict=True))
    assert_as_autograd(lambda a, b: loss_of(function(a, b)), a, b)


def test_a_complex_output_takes_a_complex_upstream() -> None:
    z, upstream = c(3), c(3)
    d = cr.derive(lambda z: z.exp() * z, z, upstream=upstream)
    leaf = z.clone().requires_grad_()
    (truth,) = torch.autograd.grad(leaf.exp() * leaf, leaf, upstream)
    assert_close(d.grads["z"], truth)
    assert d.verify()


def backward_lines(d: cr.Derivation) -> list[str]:
    text = str(d).partition("# backward\n")[2]
    return [line.partition("#")[0].rstrip() for line in text.splitlines() if "=" in line]


def test_conjugates_stand_where_an_expert_writes_them() -> None:
    x, k = r(3), c(3)

    def forward(x: Tensor) -> Tensor:
        z = x * k
        return z.abs().sum()

    assert backward_lines(cr.derive(forward, x, wrt="x")) == ["z.g = z.sgn()", "x.g = (z.g * k.conj()).real"]


def test_conjugates_that_meet_are_gone() -> None:
    x, a, b = r(3), c(4, 3), c(2, 4)

    def forward(x: Tensor) -> Tensor:
        z = a @ torch.complex(x, x)
        y = b @ (-z / 2)
        return y.real.sum()

    text = str(cr.derive(forward, x, wrt="x"))
    assert ".conj().conj()" not in text
    assert text.count("conj") <= 2, text


def test_complex_rules_verify() -> None:
    d = cr.derive(lambda z: (z.exp() * z.conj()).abs().sum(), c(3))
    assert d.verify(), str(d.verify())


def test_single_precision() -> None:
    x = torch.randn(5)
    d = cr.derive(lambda x: torch.fft.fft(x).abs().sum() + (x.cfloat() * 1j).imag.sum(), x)
    leaf = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(torch.fft.fft(leaf).abs().sum() + (leaf.cfloat() * 1j).imag.sum(), leaf)
    assert_close(d.grads["x"], truth, 1e-5)
