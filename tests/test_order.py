"""What is made of sorted or neighbouring elements, and how NaN and ties are treated, against autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from agreement import Leaves, assert_close, run_emitted
from torch import Tensor

import chainrule as cr

NAN = float("nan")


def assert_right(function: Callable[..., Tensor], *arguments: Tensor) -> None:
    d = cr.derive(lambda *tensors: function(*tensors).sin().sum(), *arguments)
    assert d.fallbacks == []
    with Leaves(d) as leaves:
        output = function(*arguments).sin().sum()
        truth = dict(zip(leaves.names, leaves.gradients(output), strict=True))
    _, emitted = run_emitted(d, *(d[name].value.clone() for name in d.inputs))
    assert any(g is not None for g in truth.values())
    for name, gradient in truth.items():
        assert_close(d.grads[name], gradient)
        assert_close(emitted[name], gradient)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("quantile", [torch.quantile, torch.nanquantile])
def test_quantiles(quantile: Callable[..., Tensor], interpolation: str, dim: int | None, keepdim: bool) -> None:
    how = {"dim": dim, "keepdim": keepdim, "interpolation": interpolation}
    assert_right(lambda x: quantile(x, 0.3, **how), normal(3, 4, 2))
    assert_right(lambda x: quantile(x, torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64), **how), normal(3, 4, 2))


def test_the_place_of_a_quantile_has_a_gradient() -> None:
    assert_right(lambda x, q: torch.quantile(x, q, dim=1), normal(3, 5), torch.tensor([0.3, 0.6], dtype=torch.float64))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.max() + x.min(),
        lambda x: x.median(),
        lambda x: x.median(1)[0],
        lambda x: x.nanmedian(1)[0],
        lambda x: x.nansum(1),
        lambda x: x.nanmean(0),
        lambda x: x.nanmean(),
        lambda x: x.nanquantile(0.3, 1),
        lambda x: x.quantile(0.3, 1),
        lambda x: x.cummax(1)[0],
        lambda x: x.sort(1)[0],
        lambda x: x.topk(2, 1)[0],
    ],
)
@pytest.mark.filterwarnings("ignore:NaN first appears:RuntimeWarning")
@pytest.mark.parametrize("rows", [[[1, 3, 2, 3], [2, 2, 2, 2]], [[1, NAN, 2, 3], [4, 2, 2, 4]], [[NAN, NAN, 2, 3]]])
def test_ties_and_nan(function: Callable[[Tensor], Tensor], rows: list[list[float]]) -> None:
    x = torch.tensor(rows, dtype=torch.float64)
    g = torch.autograd.grad(function(leaf := x.clone().requires_grad_()).sum(), leaf)[0]
    d = cr.derive(lambda x: function(x).sum(), x)
    assert d.fallbacks == []
    assert torch.equal(d.grads["x"].nan_to_num(), g.nan_to_num())
    assert torch.equal(d.grads["x"].isnan(), g.isnan())


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("integral", [torch.trapezoid, torch.trapz, torch.cumulative_trapezoid])
def test_integrals(integral: Callable[..., Tensor], dim: int) -> None:
    y = normal(3, 4)
    assert_right(lambda y: integral(y, dim=dim), y)
    assert_right(lambda y: integral(y, dx=0.5, dim=dim), y)
    assert_right(lambda y, x: integral(y, x, dim=dim), y, normal(3, 4).cos())
    assert_right(lambda y, x: integral(y, x, dim=dim), y, normal(y.shape[dim]))


@pytest.mark.parametrize("edge_order", [1, 2])
def test_finite_differences(edge_order: int) -> None:
    f, how = normal(4, 5), {"edge_order": edge_order}
    assert_right(lambda f: torch.cat(torch.gradient(f, **how)), f)
    assert_right(lambda f: torch.gradient(f, spacing=0.5, dim=1, **how)[0], f)
    assert_right(lambda f: torch.cat(torch.gradient(f, spacing=[0.5, 2.0], **how)), f)
    where = (normal(4).cumsum(0) * 0.1 + torch.arange(4), torch.arange(5.0, dtype=torch.float64) ** 2)
    assert_right(lambda f, x, y: torch.cat(torch.gradient(f, spacing=(x, y), **how)), f, *where)


def test_columns_sorted() -> None:
    assert_right(lambda x: x.msort() * torch.arange(3)[:, None], normal(3, 4))


def test_a_running_sum_of_exponentials_does_not_overflow() -> None:
    assert_right(lambda x: torch.logcumsumexp(x, 0), torch.tensor([-800.0, 700, 3, 800, -5], dtype=torch.float64))
