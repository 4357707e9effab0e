"""Engine "c": functions of elements, reductions and moves against aten in float64, and the loops that they become."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from in_c import agree, agree_each, alone, aten, compiled, p, r
from torch import Tensor

SHAPES = [(3, 5), (1, 7), (4, 1), (2, 3, 4), (), (0, 3), (17,), (33, 50)]

UNARY: dict[str, Callable[[Tensor], Any]] = {
    "relu": aten.relu.default,
    "exp": torch.exp,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "neg": torch.neg,
    "abs": torch.abs,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "sin": torch.sin,
    "erf": torch.erf,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_min": lambda x: x.clamp_min(0.1),
    "sign": torch.sign,
    "floor": torch.floor,
    "not": lambda x: ~(x > 0),
    "to_float": lambda x: (x > 0).float() * x,
    "to_int": lambda x: (x * 10).long() + 1,
    "rsub": lambda x: 1 - x,
    "scaled": lambda x: torch.add(x, 3.0, alpha=2),
    "masked": lambda x: x.masked_fill(x < 0, -torch.inf),
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "softplus": torch.nn.functional.softplus,
    "leaky": lambda x: torch.nn.functional.leaky_relu(x, 0.1),
    "elu": torch.nn.functional.elu,
    "sum": torch.sum,
    "mean": torch.mean,
    "flat": lambda x: x.reshape(-1) * 2,
    "turned": lambda x: x.permute([*range(x.dim())][::-1]).contiguous(),
    "turned_flat": lambda x: x.permute([*range(x.dim())][::-1]).reshape(-1),
    "copy": lambda x: x.clone(),
    "new": lambda x: (x.unsqueeze(0), x.unsqueeze(-1).expand(*x.shape, 3).sum(0)),
    "ones": lambda x: x + torch.ones_like(x) + torch.full(x.shape, 2.0),
    "several": lambda x: (x.exp() + x.exp().sum(), x.exp() * 2, (x.exp() > 1).float()),
}
POSITIVE: dict[str, Callable[[Tensor], Any]] = {
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "power": lambda x: x**1.7,
    "inverse": lambda x: x**-2,
    "root": lambda x: x**0.5,
    "log1p": torch.log1p,
    "scalar_power": lambda x: 2.0**x,
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one(name: str) -> None:
    agree_each([(UNARY[name], (x,)) for x in (*(r(*shape) for shape in SHAPES), r(6, 5).t())])


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_one_positive_number(name: str) -> None:
    agree_each([(POSITIVE[name], (p(*shape),)) for shape in SHAPES])


REDUCED = [(3, 5), (1, 7), (4, 1), (2, 3, 4), (2, 1, 17), (33, 50), (40, 3, 5)]
REDUCTIONS: dict[str, Callable[[Tensor, int], Any]] = {
    "sum": lambda x, d: x.sum(d),
    "sum_kept": lambda x, d: x - x.sum(d, keepdim=True),
    "mean": lambda x, d: x.mean(d),
    "amax": lambda x, d: x.amax(d),
    "amin": lambda x, d: x.amin(d, keepdim=True) + x,
    "argmax": lambda x, d: x.argmax(d),
    "max": lambda x, d: tuple(x.max(d)),
    "var": lambda x, d: x.var(d) if x.shape[d] > 1 else x.var(d, correction=0),
    "softmax": lambda x, d: x.softmax(d),
    "log_softmax": lambda x, d: x.log_softmax(d),
    "softmax_backward": lambda x, d: aten._softmax_backward_data(x * 2, x, d, x.dtype),
    "log_softmax_backward": lambda x, d: aten._log_softmax_backward_data(x * 2, x, d, x.dtype),
    "logsumexp": lambda x, d: x.logsumexp(d),
    "norm": lambda x, d: torch.linalg.vector_norm(x, dim=d),
    "cat": lambda x, d: torch.cat([x, x * 2, x.narrow(d, 0, 1)], d),
    "stack": lambda x, d: torch.stack([x, -x], d),
    "select": lambda x, d: x.select(d, 0) * 2,
    "slice": lambda x, d: (x.narrow(d, x.shape[d] // 2, x.shape[d] - x.shape[d] // 2).exp(),),
    "chunk": lambda x, d: [c * 2 for c in x.chunk(2, d)],
    "unbind": lambda x, d: sum(x.unbind(d)),
    "flip": lambda x, d: x.flip(d) * 2,
    "slice_backward": lambda x, d: aten.slice_backward(
        x, [n + 3 * (k == d % x.dim()) for k, n in enumerate(x.shape)], d, 2, 2 + x.shape[d], 1
    ),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_functions_along_a_dimension(name: str) -> None:
    agree_each([(partial(REDUCTIONS[name], d=dim), (r(*shape),)) for shape in REDUCED for dim in range(len(shape))])


def test_several_dimensions() -> None:
    def f(x: Tensor, d: tuple[int, ...]) -> tuple[Tensor, ...]:
        return x.sum(d), x.mean(d, keepdim=True) * x, x.amax(d)

    agree_each([(partial(f, d=dims), (r(4, 5, 6),)) for dims in [(0, 2), (1, 2), (0, 1, 2), (0,)]])


BINARY: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda x, y: torch.add(x, y, alpha=3),
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "power": lambda x, y: (x.abs() + 0.1) ** y,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda x, y: torch.where(x > y, x, y * 2),
    "compare": lambda x, y: (x < y, x >= y, x == y, (x > 0) & (y > 0), (x > 0).logical_or(y > 0)),
    "threshold_backward": lambda x, y: aten.threshold_backward(x + y, y + x * 0, 0),
    "tanh_backward": lambda x, y: aten.tanh_backward(x, y),
    "sigmoid_backward": lambda x, y: aten.sigmoid_backward(x, y),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "addcmul": lambda x, y: torch.addcmul(x, y, y, value=0.5),
    "addcdiv": lambda x, y: torch.addcdiv(x, y, y.abs() + 1, value=0.5),
    "gelu_backward": lambda x, y: (
        aten.gelu_backward(x + y * 0, y + x * 0),
        aten.gelu_backward(x + y * 0, y + x * 0, approximate="tanh"),
    ),
}


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two(name: str) -> None:
    shapes = [((3, 5), (3, 5)), ((3, 5), (5,)), ((4, 1), (1, 7)), ((2, 3, 4), (3, 1)), ((), (2, 3)), ((0, 3), (1, 3))]
    pairs = [*((r(*one), r(*other)) for one, other in shapes), (r(5, 3).t(), r(3, 10)[:, ::2])]
    agree_each([(BINARY[name], pair) for pair in pairs])


# -- numbers that are none ---------------------------------------------------------------------------


SPECIAL = torch.tensor(
    [1.0, torch.nan, -torch.inf, torch.inf, 0.0, -0.0, -1.0, 1e38, -1e38, 100.0, -200.0, 1e-40, 89.0]
).repeat(3)


def test_nan_and_infinity_go_through() -> None:
    defined: list[Callable[[Tensor], Tensor]] = []
    for name, f in {**UNARY, **POSITIVE}.items():
        if "gelu" in name:  # aten's own kernel gives NaN at infinity
            continue
        try:
            wanted = f(SPECIAL)
        except RuntimeError:
            continue
        if isinstance(wanted, Tensor) and wanted.dtype == torch.float32:
            defined.append(f)
    step = compiled(lambda x: tuple(f(x) for f in defined), [SPECIAL])
    for f, mine in zip(defined, step(SPECIAL), strict=True):
        torch.testing.assert_close(mine, f(SPECIAL), equal_nan=True, rtol=2e-6, atol=1e-37, msg=step.source)
    assert len(defined) > 25


@pytest.mark.parametrize("reduced", [
    (lambda x: x.amax(1), lambda x: x.amin(1), lambda x: x.argmax(1), lambda x: x.softmax(1), lambda x: x.amax(0)),
    (lambda x: x.sum(1), lambda x: x @ x.t(), lambda x: torch.maximum(x, x.flip(1)), lambda x: x[:, 2:4].amax(1)),
    (lambda x: x.argmin(1), lambda x: x[:, 2:3].softmax(1)),
])  # fmt: skip
def test_nan_and_infinity_go_through_reductions(reduced: tuple[Callable[[Tensor], Tensor], ...]) -> None:
    rows = SPECIAL.repeat(7, 1)
    for f, mine in zip(reduced, compiled(lambda x: tuple(f(x) for f in reduced), [rows])(rows), strict=True):
        torch.testing.assert_close(mine, f(rows), equal_nan=True)


def test_the_largest_of_what_is_not_a_number() -> None:
    whole = torch.full((40, 40), torch.nan)
    (mine,) = compiled(alone(torch.amax), [whole])(whole)
    assert mine.isnan()


@pytest.mark.parametrize(("f", "loops"), [
    (lambda x: x * 2 + 1, 1), (lambda x: x + x[0], 2), (lambda x: x + x[0, 0], 3), (lambda x: x[:, 1:3] * 2, 2), (lambda x: x[..., 1:] * 2, 3),
    (lambda x: x.transpose(1, 2) * 2, 3), (lambda x: x.flip(2) * 2, 3), (lambda x: x.reshape(20, 6).relu(), 1), (lambda x: x.sum(), 1),
    (lambda x: x.sum((1, 2)), 2), (lambda x: x + torch.arange(6), 3), (lambda x: x * x[:, :, :1], 3), (lambda x: x[1:] - x[:-1], 1),
    (lambda x: x.expand(3, 4, 5, 6) * 2, 2), (lambda x: torch.where(x > 0, x, x[:1]), 2)])  # fmt: skip
def test_loops_over_what_lies_in_order_are_one(f: Callable[[Tensor], Tensor], loops: int) -> None:
    step = agree(f, r(4, 5, 6))
    assert step.source[step.source.index("int step(") :].count("for (") == loops, step.source


def side_by_side(x: Tensor, y: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    return torch.cat([x.exp().transpose(1, 2).reshape(shape), y.transpose(1, 2).reshape(shape)], dim)


@pytest.mark.parametrize("sizes", [(2, 3, 5, 4), (1, 3, 5, 4), (2, 1, 5, 4), (2, 3, 1, 4), (2, 3, 5, 1), (0, 3, 5, 4)])
def test_heads_are_put_side_by_side(sizes: tuple[int, int, int, int]) -> None:
    batch, heads, tokens, width = sizes
    rows, places = batch * tokens, tokens * heads
    x, y = r(*sizes), r(*sizes)
    shapes = [(batch, tokens, heads * width), (rows, heads, width), (rows, heads * width), (batch, places, 1, width)]
    side = [partial(side_by_side, shape=shape, dim=dim) for shape in shapes for dim in range(len(shape))]
    agree_each([(f, (x, y)) for f in side])


def test_turned_matrices_are_put_side_by_side() -> None:
    agree(lambda x: torch.cat([x.t().reshape(6, 10), x.t().reshape(6, 10) * 2, x.t().reshape(6, 10)], 1), r(5, 12))
