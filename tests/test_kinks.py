"""Every elementwise rule at zeros, ones, bounds, ties, infinities and NaN: the gradient there is autograd's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from test_rules import RULES
from torch import Tensor

from chainrule.checking.rules import over_tensors, tensors_in
from chainrule.recording.numbers import slot
from chainrule.rules import Rule
from chainrule.rules.broadcast import unbroadcast
from chainrule.rules.samples import arguments

POINTS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    6.0,
    40.0,
    -40.0,
    float("inf"),
    -float("inf"),
    float("nan"),
]
FEW = [0.0, 1.0, -1.0, 2.0, float("inf"), -float("inf"), float("nan")]

# Where a rule says something else than autograd, and why.
ALLOWED: dict[str, str] = {
    "mvlgamma": "defined above (p - 1) / 2 only; below, torch takes -0.0 for 0.0",
    "special_multigammaln": "as mvlgamma",
}
ONE_NUMBER = ("fill", "masked_fill")  # the value that they take is one number

CASES = [
    pytest.param(rule, sample, id=f"{rule.name}: {sample}")
    for rule in RULES
    if rule.elementwise
    for sample in rule.samples
    if "z(" not in sample
]


def is_varied(rule: Rule, t: Tensor) -> bool:
    return t.dtype.is_floating_point and (t.ndim > 0 or rule.name not in ONE_NUMBER)


def at_special_points(rule: Rule, sample: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `sample`, with every combination of special points (and of its own numbers) as tensors."""
    args, kwargs = arguments(sample)
    numbers = [float(v) for v in (*args, *kwargs.values()) if type(v) in (int, float)]
    floating = [t for t in tensors_in((args, kwargs)) if is_varied(rule, t)]
    points = [*(POINTS if len(floating) < 3 else FEW), *numbers, *(-n for n in numbers)]
    grid = torch.tensor(list(itertools.product(points, repeat=len(floating))), dtype=torch.float64)
    columns = iter(grid.unbind(1))
    generator = torch.Generator().manual_seed(0)

    def special(t: Tensor) -> Tensor:
        if is_varied(rule, t):
            return next(columns).clone()
        if t.dtype.is_floating_point:
            return t
        return torch.randint(0 if t.dtype == torch.bool else -3, 2, (len(grid),), generator=generator).to(t.dtype)

    return over_tensors((args, kwargs), special)


def floating(given: Any) -> list[Tensor]:
    return [t for t in tensors_in(given) if t.dtype.is_floating_point]


def by_autograd(rule: Rule, given: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The output, the upstream gradient, and what autograd makes of it."""
    args, kwargs = over_tensors(given, lambda t: t.clone().requires_grad_() if t.dtype.is_floating_point else t)
    leaves = floating((args, kwargs))
    out = rule.function(*args, **kwargs)
    upstream = torch.full_like(out, 0.75)
    found = torch.autograd.grad(out, leaves, upstream, allow_unused=True)
    return out.detach(), upstream, [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, found, strict=True)]


def by_rule(rule: Rule, given: Any, out: Tensor, upstream: Tensor) -> list[Tensor]:
    args, kwargs = over_tensors(given, Tensor.detach)
    slots = [slot(v) if type(v) in (int, float) else v for v in args]
    named = {k: slot(v) if type(v) in (int, float) else v for k, v in kwargs.items()}
    out.g = upstream  # type: ignore[attr-defined]
    bound = rule.bind(out, tuple(slots), named)
    assert bound is not None
    rule.backward(*bound.args, **bound.kwargs)
    gradients = [(t, t.g) for t in floating((slots, named))]  # type: ignore[attr-defined]
    return [torch.zeros_like(t) if g is None else unbroadcast(g, t) for t, g in gradients]


def differ(a: Tensor, b: Tensor) -> Tensor:
    return ~torch.isclose(a, b.to(a.dtype), rtol=1e-7, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(("rule", "sample"), CASES)
def test_gradients_at_special_points_are_those_of_autograd(rule: Rule, sample: str) -> None:
    given = at_special_points(rule, sample)
    out, upstream, truth = by_autograd(rule, given)
    ours = by_rule(rule, given, out, upstream)
    suspects = {int(i) for a, b in zip(ours, truth, strict=True) for i in differ(a, b).reshape(-1).nonzero()[:, 0]}
    for i in sorted(suspects):  # one by one: torch's kernels for vectors and for single numbers differ at NaN
        point = over_tensors(given, lambda t, i=i: t[i : i + 1] if t.ndim else t)
        out, upstream, truth = by_autograd(rule, point)
        ours = by_rule(rule, point, out, upstream)
        where = f"{[float(t) for t in floating(point)]}: {ours}, autograd {truth}"
        assert rule.name in ALLOWED or not any(bool(differ(a, b)) for a, b in zip(ours, truth, strict=True)), where


def test_the_table_of_exceptions_is_about_rules_that_exist() -> None:
    assert set(ALLOWED) <= {rule.name for rule in RULES}
