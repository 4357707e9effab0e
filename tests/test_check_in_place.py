"""`check` of a torch.autograd.Function that writes into its input: the gradient is that of what it was given."""

from __future__ import annotations

import pytest
import torch
from test_check_forms import defined

import chainrule as cr

RELU = """
import torch

class Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        x.clamp_(min=0)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        g = g.clone()
        g[y <= 0] = 0
        return g

def step(x):
    h = x * 2
    return Relu.apply(h).pow(2).sum()
"""


def test_a_function_that_writes_into_its_input() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    r = cr.check(defined(RELU, "Relu"), x.clone())
    assert r.ok and r.rows[0].name == "Relu.x" and not any("convention" in note for note in r.notes), str(r)
    for wrong in (RELU.replace("y <= 0", "y > 0"), RELU.replace("        g[y <= 0] = 0\n", "")):
        r = cr.check(defined(wrong, "Relu"), x.clone())
        assert not r.ok and [row.status for row in r.rows] == ["wrong"], str(r)


def test_inside_of_a_step_it_is_refused_in_one_sentence() -> None:
    with pytest.raises(cr.ChainruleError, match=r"h \(4, 3\) was changed in place by Relu.forward.*give Relu alone"):
        cr.check(defined(RELU, "step"), torch.randn(4, 3, requires_grad=True))
