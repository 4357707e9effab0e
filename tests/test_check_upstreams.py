"""`check`: the upstream gradient, and what a Function is called with, are no part of the person's data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import chainrule as cr
from chainrule.cli import main


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):  # type: ignore[no-untyped-def, override]
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, d):  # type: ignore[no-untyped-def, override]
        a, b = ctx.saved_tensors
        return d * b, a * a


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, scale):  # type: ignore[no-untyped-def, override]
        ctx.scale = scale
        return q * scale

    @staticmethod
    def backward(ctx, dout):  # type: ignore[no-untyped-def, override]
        return dout * ctx.scale, None


def test_data_that_is_drawn_as_the_upstream_gradient_might_be() -> None:
    for dtype in (torch.float32, torch.float64):
        a, b = (torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=dtype) for _ in range(2))
        assert not cr.check(Squared, a, b).ok


@pytest.mark.parametrize("scale", [lambda q: q.shape[-1] ** -0.5, lambda q: 1 / q.shape[-1], lambda q: len(q) * 2])
def test_a_function_is_given_a_number_that_a_size_gave(scale) -> None:  # type: ignore[no-untyped-def]
    def attend(q: torch.Tensor) -> torch.Tensor:
        return Scaled.apply(q, scale(q)).sum()  # type: ignore[no-any-return, no-untyped-call]

    assert cr.check(attend, torch.randn(4, 3, requires_grad=True)).ok


def test_a_function_that_is_wrong_is_listed_beside_what_calls_it(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\n\n\nclass Mul(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x, s):\n"
        "        ctx.s = s\n        return x * s\n\n    @staticmethod\n    def backward(ctx, g):\n"
        "        return 2 * g, None\n\n\ndef net(x):\n    return Mul.apply(x, 2.0).sum()\n\n\n"
        "def inputs():\n    return {'x': torch.randn(4, 3, requires_grad=True), 's': 3.0}\n"
    )
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 1, result.output
