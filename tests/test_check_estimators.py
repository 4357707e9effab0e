"""`check` of straight-through estimators: what passes a gradient through a rounding has no truth to be compared with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_check_forms import defined

import chainrule as cr

ROUND = """
import torch

class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, s):
        return (x * s).round() / s

    @staticmethod
    def backward(ctx, g):
        return g, None

class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, s):
        q = (x / 0.3).round()
        ctx.save_for_backward(q)
        return q * s

    @staticmethod
    def backward(ctx, g):
        (q,) = ctx.saved_tensors
        return g, g * q
"""


def drawn(*shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)


def test_a_gradient_that_is_passed_straight_through_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        cr.ChainruleError, match=r"of x is 0 almost everywhere, as round is flat .* Round cannot be checked"
    ):
        cr.check(defined(ROUND, "Round"), drawn(5, 4), 8.0)


def test_what_is_passed_beside_it_is_checked() -> None:
    args = drawn(5, 4), drawn(4)[None].expand(5, 4).detach().requires_grad_()
    r = cr.check(defined(ROUND, "Scaled"), *args)
    assert r.ok and [row.name for row in r.rows] == ["Scaled.s"], str(r)
    assert any("straight-through estimator of Scaled" in note for note in r.notes), r.notes
    r = cr.check(defined(ROUND.replace("g, g * q", "g, 2 * g * q"), "Scaled"), *args)
    assert [(f.name, f.cause, f.repair) for f in r.findings] == [("Scaled.s", "wrong-scale", "return g, g * q")], str(r)


def test_derive_says_why_nothing_depends() -> None:
    with pytest.raises(cr.ChainruleError, match="as floor is flat between its steps"):
        cr.derive(lambda x: x.floor().sum(), drawn(3))
