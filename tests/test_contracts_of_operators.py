"""Promises of operators that are registered with torch.library."""

from __future__ import annotations

import torch
from autograd_functions.broken import rand
from torch import Tensor

from chainrule.diagnosis.functions.contracts import broken_promises_of_operator


@torch.library.custom_op("chainrule_tests::scaled", mutates_args=())
def scaled(x: Tensor, factor: float) -> Tensor:
    return x * factor


@scaled.register_fake
def _(x: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x)


scaled.register_autograd(
    lambda ctx, g: (g * ctx.factor, None),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "factor", inputs[1]),
)


@torch.library.custom_op("chainrule_tests::unfaked", mutates_args=())
def unfaked(x: Tensor) -> Tensor:
    return x * 2


@torch.library.custom_op("chainrule_tests::aliased", mutates_args=())
def aliased(x: Tensor) -> Tensor:
    x.mul_(2)
    return x.clone()


def test_operators() -> None:
    assert broken_promises_of_operator(scaled, (rand(3, 2).requires_grad_(), 2.0)) == []
    found = broken_promises_of_operator(unfaked, (rand(3),))
    assert {f.name for f in found} == {"chainrule_tests::unfaked"}
    assert any("register_fake" in f.message for f in found)
    assert all(f.file == __file__ and f.cause == "contract" for f in found)
    assert any("mutates_args" in f.message for f in broken_promises_of_operator(aliased, (rand(3),)))
