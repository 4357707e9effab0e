"""Matrix products of a step: the fastest way is taken among those that sum carefully."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import chainrule as cr
from chainrule.compiling.straight import products


def _stored(rows: int, columns: int, turned: bool) -> torch.Tensor:
    return torch.rand(columns, rows).t() if turned else torch.rand(rows, columns)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(50, 50_000, 1), (1, 20_000, 300), (50, 50_000, 10), (784, 3, 5), (64, 784, 50)])
def test_the_way_that_is_taken_sums_carefully(shape: tuple[int, int, int], turned: bool) -> None:
    rows, depth, columns = shape
    a, b = _stored(rows, depth, turned), torch.rand(depth, columns)
    right = a.double() @ b.double()
    lost = {}
    for way in products.ways(a, b, None):
        found = products._call(way, a, b, None)()
        lost[way] = float(((found - right) / right).abs().max()) / torch.finfo(torch.float32).eps
    taken = lost[products.fastest(a, b, None).way]
    # other numbers than those by which the way was chosen
    assert taken <= 1.5 * max(products.ROUNDING, products.CARELESS * min(lost.values()))


def test_a_way_that_loses_digits_is_left_out() -> None:
    by_halves = products.Way("in half the digits", "({a}.half() @ {b}.half()).float()")
    a, b = torch.rand(9, 40), torch.rand(40, 11)
    assert products.careful([products.MM, by_halves], a, b, None) == [products.MM]
    bias = torch.rand(11)
    assert products.careful([products.ADDMM], a, b, bias) == [products.ADDMM]


def test_products_without_terms_have_a_way() -> None:
    for rows, depth, columns in [(0, 3, 4), (3, 0, 4), (3, 4, 0)]:
        assert products.fastest(torch.rand(rows, depth), torch.rand(depth, columns), None).way == products.MM


W = torch.randn(32, 48)


@pytest.mark.filterwarnings("ignore:the engine .* is left out.*unfold")  # it has no spelling in C
@pytest.mark.parametrize("engine", ["torch", "c"])
@pytest.mark.parametrize(
    "forward",
    [
        lambda x, w: (x @ w).sum(0).pow(2).sum(),
        lambda x, w: (x @ w).mean(1).sigmoid().sum(),
        lambda x, w: (x[:1].expand(64, 32) @ w).pow(2).sum(),
        lambda x, w: (x[0].unfold(0, 16, 4) @ w[:16]).pow(2).sum(),
        lambda x, w: (x[:, ::2] @ w[::2]).pow(2).sum(),
        lambda x, w: (x[:1, :1] @ w[:1]).pow(2).sum(),
    ],
)
def test_operands_that_are_expanded_or_overlap(forward: Callable[..., torch.Tensor], engine: str) -> None:
    x, w = torch.randn(64, 32), W.clone().requires_grad_()
    loss, found = cr.compile(lambda x: forward(x, w), x, params={"w": w}, engine=engine)(x)
    expected = forward(x, w)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["w"], torch.autograd.grad(expected, w)[0], rtol=1e-3, atol=1e-3)
