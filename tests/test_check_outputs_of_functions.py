"""`check` on autograd.Functions: outputs without a gradient, several outputs against a reference, forward passes that are
not recorded, complex numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_check import rand
from torch import Tensor

import chainrule as cr

Function = torch.autograd.Function


class Marked(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        s = x.exp()
        ctx.save_for_backward(s)
        ctx.mark_non_differentiable(s)
        return 2 * s, s

    @staticmethod
    def backward(ctx: Any, g: Tensor, other: Tensor) -> Tensor:
        assert not other.any()
        return 2 * g * ctx.saved_tensors[0]


class MarkedWrong(Marked):
    @staticmethod
    def backward(ctx: Any, g: Tensor, other: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0]


class Unmaterialized(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        s = x.exp()
        ctx.save_for_backward(s)
        ctx.mark_non_differentiable(s)
        ctx.set_materialize_grads(False)
        return 2 * s, s

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, other: Tensor | None) -> Tensor | None:
        assert other is None
        return None if g is None else 2 * g * ctx.saved_tensors[0]


def test_an_output_that_is_marked_has_no_gradient() -> None:
    x = rand(3, 4)
    assert cr.check(Marked, x).ok
    assert cr.check(lambda x: Marked.apply(x)[0].sum(), x).ok  # type: ignore[no-untyped-call]
    assert cr.check(Unmaterialized, x).ok
    [finding] = cr.check(MarkedWrong, x).findings
    assert (finding.cause, finding.proved, finding.text) == ("wrong-scale", True, "return g * ctx.saved_tensors[0]")


class Opaque(Function):
    """Two outputs of a kernel; the second has a gradient, the third none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x)
        sine, cosine = torch.from_numpy(np.sin(x.numpy())), torch.from_numpy(np.cos(x.numpy()))
        index = sine.argmax(1)
        ctx.mark_non_differentiable(index)
        return sine, cosine, index

    @staticmethod
    def backward(ctx: Any, gs: Tensor, gc: Tensor, _: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        return gs * x.cos() - gc * x.sin()


class OpaqueWrong(Opaque):
    @staticmethod
    def backward(ctx: Any, gs: Tensor, gc: Tensor, _: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        return gs * x.cos() + gc * x.sin()


@pytest.mark.parametrize(
    "reference", [lambda x: (x.sin(), x.cos(), x.sin().argmax(1)), lambda x: (x.sin(), x.cos())], ids=["all", "having"]
)
def test_a_reference_gives_all_outputs_or_those_with_a_gradient(reference: Any) -> None:
    x = rand(3, 4)
    assert cr.check(Opaque, x, reference=reference).ok
    [finding] = cr.check(OpaqueWrong, x, reference=reference).findings
    assert (finding.proved, finding.repair) == (True, "return gs * x.cos() - gc * x.sin()"), finding


def test_a_reference_with_other_outputs_is_refused() -> None:
    with pytest.raises(cr.ChainruleError, match="Opaque returns 3 outputs, and its reference 1"):
        cr.check(Opaque, rand(3, 4), reference=torch.sin)


class Copied(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 2 * x + torch.tensor(np.sin(x.numpy()))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * (2 + ctx.saved_tensors[0].cos())


class CopiedWrong(Copied):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * (2 - ctx.saved_tensors[0].cos())


def test_a_forward_pass_that_is_recorded_in_part_is_refused_and_no_alarm() -> None:
    x, reference = rand(3, 4), lambda x: 2 * x + x.sin()
    for code in (Copied, CopiedWrong, lambda x: Copied.apply(x).sum()):  # type: ignore[no-untyped-call]
        with pytest.raises(cr.ChainruleError, match=r"Copied(Wrong)? cannot be recorded from x on .* with reference="):
            cr.check(code, x)
    assert cr.check(Copied, x, reference=reference).ok
    [finding] = cr.check(CopiedWrong, x, reference=reference).findings
    assert finding.proved and finding.line is not None


class Product(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return g * b.conj(), g * a.conj()


class ProductWrong(Product):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return g * b, g * a.conj()


def test_complex_gradients() -> None:
    a, b = (torch.complex(rand(5, seed=k), rand(5, seed=k + 1)) for k in (0, 2))
    assert cr.check(Product, a, b).ok
    report = cr.check(ProductWrong, a, b)
    [finding] = report.findings
    assert (finding.name, finding.proved, finding.repair) == (
        "ProductWrong.a",
        True,
        "return g * b.conj(), g * a.conj()",
    )
    assert [row.status for row in report.rows] == ["wrong", "right"], report


class FixedPoint(Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(60):
            z = torch.tanh(z @ w + x)
        ctx.save_for_backward(w, z)
        return z

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        w, z = ctx.saved_tensors
        d = 1 - z**2
        u = torch.linalg.solve(torch.eye(len(w), dtype=w.dtype) - w * d, g)
        return torch.outer(z, u * d), u


def test_a_repair_through_many_turns_is_none() -> None:
    w, x = 0.1 * rand(3, 3, dtype=torch.float64), rand(3, dtype=torch.float64)
    report = cr.check(FixedPoint, w, x)
    assert {row.name: row.status for row in report.rows} == {"FixedPoint.w": "right", "FixedPoint.x": "wrong"}, report
    assert all(len(finding.repair) < 300 for finding in report.findings), report


class InPlaceEntropy(Function):
    """As kernels do it: the gradient is made in forward, and scaled only where the loss is part of another one."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        p = z.softmax(1)
        d = p.clone()
        d[torch.arange(len(y)), y] -= 1
        ctx.save_for_backward(d)
        return -p[torch.arange(len(y)), y].log().mean()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (d,) = ctx.saved_tensors
        if g.item() != 1.0:
            d = d * g
        return d, None


def test_a_repair_holds_for_the_gradient_that_a_loss_has() -> None:
    [finding] = cr.check(InPlaceEntropy, rand(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])).findings
    assert finding.cause == "wrong-scale" and finding.proved, finding
    assert not finding.repair.startswith("d = d * g"), finding  # which is not run by loss.backward()


class Quantize(Function):
    """Straight through to the input, and a sum of rows to the codebook."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codebook: Tensor) -> Tensor:
        index = torch.cdist(x, codebook).argmin(1)
        ctx.save_for_backward(index, codebook)
        return codebook[index]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        index, codebook = ctx.saved_tensors
        return g.clone(), torch.zeros_like(codebook).index_add_(0, index, g)


def test_an_estimator_through_an_index_cannot_be_checked_and_is_no_mistake() -> None:
    report = cr.check(Quantize, rand(5, 3), rand(4, 3, seed=3))
    assert report.ok and "as argmin is flat between its steps" in report.notes[0], report
    assert [row.name for row in report.rows] == ["Quantize.codebook"], report
