"""What was once silently wrong, or would be: it is right now, or it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def truth(f: Callable[..., Tensor], *args: Tensor) -> list[Tensor]:
    leaves = [a.clone().requires_grad_() for a in args]
    return list(torch.autograd.grad(f(*leaves).sum(), leaves))


def right(f: Callable[..., Tensor], *args: Tensor, **how: Any) -> None:
    d = cr.derive(f, *args, **how)
    torch.testing.assert_close(d.output, f(*args))
    for ours, theirs in zip(d.grads.values(), truth(f, *args), strict=True):
        torch.testing.assert_close(ours, theirs)


SCALE = 0.1


def float_by_a_name(x: Tensor) -> Tensor:
    rows = 2 * x.shape[0]
    return (SCALE / (rows + 1)) * (x**2).sum()


def float_by_one_of_several(x: Tensor) -> Tensor:
    rows, columns = x.shape
    return (x * (0.5 * rows)).sum() / columns


def float_by_a_length(x: Tensor) -> Tensor:
    n = len(x)
    return 1.0 / n * x.exp().sum()


ELSEWHERE: list[tuple[Callable[[Tensor], Tensor], Tensor, Tensor]] = [
    (lambda x: (x * x).mean((0, 2)).sum(), rand(1, 4, 3), rand(5, 4, 3)),
    (lambda x: ((x - x.mean(0, keepdim=True)) ** 3).sum(), rand(1, 4), rand(5, 4)),
    (lambda x: (x[1:] * x[:-1].sum(0, keepdim=True)).sum(), rand(2, 3), rand(5, 3)),
    (lambda x: (x / math.log(x.shape[0])).sum(), rand(3, 4), rand(5, 4)),
    (lambda x: (x / math.sqrt(x.shape[0] / 2)).sum(), rand(3, 4), rand(5, 4)),
    (lambda x: (x * abs(x.shape[0])).sum() / divmod(x.shape[0], 2)[0], rand(3, 4), rand(7, 4)),
    (lambda x: torch.stack([x.sin()] * x.shape[0]).sum(), rand(3, 4), rand(5, 4)),
    (lambda x: (x ** x.shape[0]).sum(), rand(2, 3), rand(3, 3)),
    (lambda x: (x * (1.0 / x.shape[0])).sum(), rand(3, 4), rand(5, 4)),
    (lambda x: (x * -(2.5 ** x.size(0))).sum(), rand(3, 4), rand(5, 4)),
    (float_by_a_name, rand(3, 4), rand(5, 4)),
    (float_by_one_of_several, rand(3, 4), rand(5, 4)),
    (float_by_a_length, rand(3, 4), rand(5, 4)),
    (lambda x: x.sin().sum() if torch.equal(x, x.abs()) else x.cos().sum(), rand(3, 4), rand(3, 4).abs()),
    (lambda x: x.exp().sum() if torch.allclose(x, x.abs()) else x.cos().sum(), rand(3, 4), rand(3, 4).abs()),
]


@pytest.mark.parametrize("case", range(len(ELSEWHERE)))
def test_emitted_code_is_right_elsewhere_or_refuses(case: int) -> None:
    f, here, elsewhere = ELSEWHERE[case]
    d = cr.derive(f, here)
    torch.testing.assert_close(d.function(here)[1]["x"], truth(f, here)[0])
    with pytest.raises(AssertionError):
        d.function(elsewhere)


def test_sizes_beside_a_hidden_one_stay_free() -> None:
    d = cr.derive(float_by_one_of_several, rand(3, 4))
    torch.testing.assert_close(d.function(rand(3, 7))[1]["x"], truth(float_by_one_of_several, rand(3, 7))[0])


def test_intermediates_that_would_be_stretched_elsewhere() -> None:
    d = cr.derive(lambda x, b: ((x * 2) + (b * 2)).pow(2).sum(), rand(3, 4), rand(3, 4))
    with pytest.raises(AssertionError):
        d.function(rand(3, 4), rand(4))


def test_a_write_under_no_grad_is_refused() -> None:
    def clamped(x: Tensor) -> Tensor:
        h = x * 2
        with torch.no_grad():
            h.clamp_(min=0)
        return h.sum()

    with pytest.raises(cr.ChainruleError, match="in place under"):
        cr.derive(clamped, rand(3, 4))


def test_gradients_taken_inside_are_refused() -> None:
    def penalty(x: Tensor) -> Tensor:
        z = x.clone().requires_grad_()
        (g,) = torch.autograd.grad((z**3).sum(), z, create_graph=True)
        return g.pow(2).sum()

    with pytest.raises(cr.ChainruleError):
        cr.derive(penalty, rand(3))


def test_a_query_that_may_look_nowhere() -> None:
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[1] = False
    right(
        lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=mask),
        rand(1, 3, 4),
        upstream=torch.ones(1, 3, 4).double(),
    )


def test_dropout_in_place_writes() -> None:
    def forward(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        y = x * 2
        F.dropout(y, 0.5, True, True)
        return (y * y).sum()

    right(forward, rand(4, 5))


def test_running_statistics_move_once() -> None:
    norm, x = nn.BatchNorm1d(4).double(), rand(6, 4)
    cr.derive(lambda x: norm(x).pow(3).sum(), x).source("function")
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(0))


def test_spellings_and_conventions() -> None:
    keep = torch.tensor([True, False, True])
    right(lambda x, y: x.where(keep, y), rand(3), rand(3).exp(), upstream=torch.ones(3).double())
    tied = torch.tensor([1.0, 2.0], dtype=torch.float64)
    right(lambda a, b: torch.fmax(a, b).sum(), tied, tied.clone())
    zero = torch.zeros(2, dtype=torch.float64)
    right(lambda a, b: torch.xlogy(a, b).sum(), zero, zero + 1)
    right(lambda b: (torch.zeros(2, dtype=torch.float64) ** b).sum(), zero + 2)


def test_the_emitted_function_refuses_to_be_differentiated_twice() -> None:
    space: dict[str, Any] = {}
    exec(cr.derive(lambda x: (x.exp() * x).sum(), rand(4)).source("autograd"), space)
    x = rand(4).requires_grad_()
    (g,) = torch.autograd.grad(space["Derived"].apply(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="grad"):
        g.sum().backward()


def a_whole_number_of_a_real_one(x: Tensor) -> Tensor:
    return (x ** int(x.min())).sum()


@pytest.mark.parametrize("style", ["function", "autograd", "numpy"])
@pytest.mark.parametrize("least", [2.7, -2.7])
def test_a_number_that_python_cuts(least: float, style: str) -> None:
    x = torch.tensor([least, 3.2, 4.5], dtype=torch.float64)
    right(a_whole_number_of_a_real_one, x)
    d = cr.derive(a_whole_number_of_a_real_one, x)
    d.source(style)  # has run it, assertions and all
    others = x + math.copysign(0.2, least) * torch.eye(3, dtype=torch.float64)[0]
    torch.testing.assert_close(d.function(others)[1]["x"], truth(a_whole_number_of_a_real_one, others)[0])
    with pytest.raises(AssertionError):
        d.function(x * 2)


@pytest.mark.parametrize("style", ["function", "autograd", "numpy"])
@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x / 0).sum(),
        lambda x: (3 * x / (x.shape[0] - 3)).mean(),
        lambda x: (2 / x / 0).sum(),
        lambda x: (x.exp() / 0.0 / x).sum(),
        lambda x: (x - x / 0).sum(),
        lambda x: x[:0].mean(),
        lambda x: F.mse_loss(x[3:], x[:0]),
    ],
)
@pytest.mark.filterwarnings("ignore:.* first appears in:RuntimeWarning", "ignore:Mean of empty:RuntimeWarning")
def test_division_by_zero_is_as_torch_s(f: Callable[[Tensor], Tensor], style: str) -> None:
    x = rand(3)
    d = cr.derive(f, x)
    torch.testing.assert_close(d.grads["x"], truth(f, x)[0], equal_nan=True)
    d.source(style)  # has run it
