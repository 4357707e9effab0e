"""The backward pass of rules as mathematics, looked at one by one."""

from __future__ import annotations

import pytest
import torch

from chainrule.checking.examples import of_opening, of_rule
from chainrule.rules import BOOK
from chainrule.show.formula import formula

FORMULAS = {
    "matmul": ["∂L/∂a = ∂L/∂out bᵀ", "∂L/∂b = aᵀ ∂L/∂out"],
    "mul": ["∂L/∂a = ∂L/∂out ⊙ b", "∂L/∂b = ∂L/∂out ⊙ a"],
    "div": ["∂L/∂a = ∂L/∂out / b", "∂L/∂b = −∂L/∂out ⊙ out / b"],
    "linear": ["∂L/∂x = ∂L/∂out weight", "∂L/∂weight = (∂L/∂out)ᵀ x", "∂L/∂bias = Σ₀ ∂L/∂out"],
    "square": ["∂L/∂x = 2 ∂L/∂out ⊙ x"],
    "log": ["∂L/∂x = ∂L/∂out / x"],
    "log2": ["∂L/∂x = ∂L/∂out / ln(2) / x"],
    "rsqrt": ["∂L/∂x = −∂L/∂out ⊙ out³ / 2"],
    "asin": ["∂L/∂x = ∂L/∂out / √(1 − x²)"],
    "tanh": ["∂L/∂x = ∂L/∂out ⊙ (1 − out²)"],
    "erf": ["∂L/∂x = (2 / √π) ∂L/∂out ⊙ exp(−x²)"],
    "abs": ["∂L/∂x = ∂L/∂out ⊙ sign(x)"],
    "relu": ["∂L/∂x = 0 where out ≤ 0, else ∂L/∂out"],
    "leaky_relu": ["∂L/∂x = ∂L/∂out where x > 0, else 0.01 ∂L/∂out"],
    "clamp": ["∂L/∂x = ∂L/∂out ⊙ [x ≥ −0.5 and x ≤ 0.5]"],
    "where": ["∂L/∂a = ∂L/∂out where condition, else 0", "∂L/∂b = Σ₀(0 where condition, else ∂L/∂out)"],
    "hardswish": ["∂L/∂x = 0 where x ≤ −3, else ∂L/∂out ⊙ (x / 3 + 0.5) where x < 3, else ∂L/∂out"],
    "silu": ["s = σ(x)", "∂L/∂x = ∂L/∂out ⊙ s ⊙ (x ⊙ (1 − s) + 1)"],
    "softmax": ["∂L/∂x = out ⊙ (∂L/∂out − Σ₁(∂L/∂out ⊙ out))"],
    "logsumexp": ["∂L/∂x = (∂L/∂out)[:, None] ⊙ exp(x − out[:, None])"],
    "var": ["∂L/∂x = 2 ∂L/∂out · (x − mean(x)) / (size(x) − 1)"],
    "amax": ["eq = [x = out[:, None]]", "∂L/∂x = (∂L/∂out)[:, None] ⊙ eq / (Σ₁ eq)"],
    "cumsum": ["∂L/∂x = flip₁(cumsum₁(flip₁(∂L/∂out)))"],
    "cross_entropy": ["∂L/∂x = ∂L/∂out · (softmax₁(x) − one_hot(target, size₁(x))) / size(target)"],
    "layer_norm": [
        "scale = 1 / √(var₋₁(x, unbiased=False) + 1e-05)",
        "normal = (x − mean₋₁(x)) ⊙ scale",
        "∂L/∂x = scale ⊙ (∂L/∂out − mean₋₁(∂L/∂out) − normal ⊙ mean₋₁(∂L/∂out ⊙ normal))",
    ],
    "linalg_inv": ["∂L/∂x = −outᵀ ∂L/∂out outᵀ"],
    "logdet": ["∂L/∂x = (∂L/∂out)[..., None][..., None] ⊙ (x⁻¹)ᵀ"],
    "cdist": [
        "g = 0 where out = 0, else ∂L/∂out / out",
        "∂L/∂x1 = (Σ₋₁ g) ⊙ x1 − g x2",
        "∂L/∂x2 = Σ₋₁(gᵀ) ⊙ x2 − gᵀ x1",
    ],
    "angle": ["∂L/∂z = 0 where z = 0, else i ∂L/∂out / conj(z)"],
    "conv2d": [
        "∂L/∂x = conv2d_input(shape(x), weight, ∂L/∂out)",
        "∂L/∂weight = conv2d_weight(x, shape(weight), ∂L/∂out)",
        "∂L/∂bias = Σ₀,₂,₃ ∂L/∂out",
    ],
    "gather": ["∂L/∂x = scatter_add(0, 1, index, ∂L/∂out)"],
    "positive": ["∂L/∂x = ∂L/∂out"],
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_formula_of_a_rule(name: str) -> None:
    sample = of_rule(BOOK.rules[name])
    assert sample is not None and formula(sample.derive().program) == FORMULAS[name]


def test_what_the_forward_pass_gave_is_said_first() -> None:
    found = of_opening(torch.dist, BOOK.openings[torch.dist])
    assert found is not None
    lines = formula(found[1].program)
    assert lines[0] == "sub = input − other"
    assert [line.split(" = ")[0] for line in lines[1:]] == ["∂L/∂input", "∂L/∂other"]
