"""Engine "c": operations, programs and steps against aten in float64."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from chainrule.compiling.c import CStep, NoCompiler, NoSpelling, build, compile_c, step
from chainrule.compiling.c.products import Machine

aten = torch.ops.aten


def graph_of(f: Callable[..., Any], args: list[Tensor]) -> fx.Graph:
    graph = make_fx(f, tracing_mode="fake")(*args).graph
    graph.eliminate_dead_code()
    return graph


def compiled(
    f: Callable[..., Any], args: list[Tensor], written: dict[int, int] | None = None, threads: int = 1
) -> CStep:
    """`f` gives a tuple; `written` says which of its results goes to which argument, the others are outputs."""
    graph = graph_of(f, args)
    results = next(n for n in graph.nodes if n.op == "output").args[0]
    places = [n for n in graph.nodes if n.op == "placeholder"]
    written = written or {}
    return compile_c(
        graph,
        [r for i, r in enumerate(results) if i not in written.values()],
        {places[place]: results[result] for place, result in written.items()},
        {p: f"x{i}" for i, p in enumerate(places)},
        threads=threads,
    )


def wide(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.dtype == torch.float32 else x


def assert_same(mine: Tensor, single: Tensor, true: Tensor, what: str) -> None:
    """`mine` is as near to the truth as `single`, what aten gives in float32, but for a few units in the last place."""
    assert mine.shape == true.shape, what
    if not true.dtype.is_floating_point:
        assert torch.equal(mine, true), what
        return
    assert torch.equal(mine.isnan(), true.isnan()), what
    finite = true.isfinite() & (true.abs() < 3e38)
    size = true[finite].abs().max().item() if finite.any() else 0.0
    bound = 2e-6 if mine.dtype == torch.float32 else 1e-12
    unit = torch.finfo(mine.dtype).eps + 4 * ((single - true)[finite].abs().max().item() if finite.any() else 0.0)
    assert ((mine[finite] - true[finite]).abs() <= bound * (true[finite].abs() + size) + unit).all(), what
    assert torch.equal(mine[true.isinf()].double(), true[true.isinf()].double()), what


def agree(f: Callable[..., Any], *args: Tensor) -> CStep:
    """The step gives what aten gives in float64, for these arguments."""

    def tuple_of(*given: Tensor) -> tuple[Tensor, ...]:
        result = f(*given)
        return tuple(result) if isinstance(result, tuple | list) else (result,)

    step = compiled(tuple_of, list(args))
    for mine, single, true in zip(step(*args), tuple_of(*args), tuple_of(*map(wide, args)), strict=True):
        assert mine.dtype == single.dtype
        assert_same(mine, single, true, step.source)
    return step


def alone(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor]]:
    return lambda x: (f(x),)


def r(*shape: int) -> Tensor:
    return torch.randn(shape)


def p(*shape: int) -> Tensor:
    return torch.rand(shape) + 0.1


def i(high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape)


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
    for shape in SHAPES:
        agree(UNARY[name], r(*shape))
    agree(UNARY[name], r(6, 5).t())


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_one_positive_number(name: str) -> None:
    for shape in SHAPES:
        agree(POSITIVE[name], p(*shape))


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
    for shape in REDUCED:
        for dim in range(len(shape)):
            agree(partial(REDUCTIONS[name], d=dim), r(*shape))


def test_several_dimensions() -> None:
    for dims in [(0, 2), (1, 2), (0, 1, 2), (0,)]:
        agree(partial(lambda x, d: (x.sum(d), x.mean(d, keepdim=True) * x, x.amax(d)), d=dims), r(4, 5, 6))


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
    for one, other in [
        ((3, 5), (3, 5)),
        ((3, 5), (5,)),
        ((4, 1), (1, 7)),
        ((2, 3, 4), (3, 1)),
        ((), (2, 3)),
        ((0, 3), (1, 3)),
    ]:
        agree(BINARY[name], r(*one), r(*other))
    agree(BINARY[name], r(5, 3).t(), r(3, 10)[:, ::2])


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (64, 48, 48), (7, 33, 50), (2, 100, 2),
                                   (65, 3, 17), (6, 20, 130), (0, 3, 4), (3, 0, 4), (31, 2500, 9), (100, 4, 2)])  # fmt: skip
def test_products(sizes: tuple[int, int, int]) -> None:
    rows, depth, columns = sizes
    for turned in itertools.product([False, True], repeat=2):
        a = r(depth, rows).t() if turned[0] else r(rows, depth)
        b = r(columns, depth).t() if turned[1] else r(depth, columns)
        agree(lambda a, b: a @ b, a, b)
        agree(lambda a, b, c: torch.relu(torch.addmm(c, a, b, beta=2, alpha=0.5)), a, b, r(columns))
    agree(lambda a, b: (a @ b).t().exp().sum(0), r(rows, depth), r(depth, columns))
    agree(lambda a, b: torch.bmm(a, b), r(3, rows, depth), r(3, depth, columns))
    agree(lambda a, b: torch.bmm(a, b.transpose(1, 2)) * 2, r(2, depth, rows).transpose(1, 2), r(2, columns, depth))
    agree(lambda a, b: torch.mv(a, b), r(rows, depth), r(depth))


@pytest.mark.parametrize("small", [Machine(32, 16), Machine(16, 16)])
def test_products_in_narrow_registers(small: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "machine", lambda: small)
    for rows, depth, columns in [(7, 5, 17), (7, 5, 20), (3, 4, 9), (30, 20, 33), (2, 3, 5)]:
        agree(lambda a, b: a @ b, r(rows, depth), r(depth, columns))
        agree(attention(True), *(r(1, 2, columns, depth) for _ in range(4)), r(1))


def test_products_in_double() -> None:
    a, b = r(13, 20).double(), r(20, 11).double()
    agree(lambda a, b: torch.tanh(a @ b) + (b.t() @ a.t()).t().exp().log(), a, b)


LOOKUPS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "embedding": lambda: (lambda w, t: aten.embedding(w, t), r(11, 5), i(11, 3, 4)),
    "embedding_backward": lambda: (lambda g, t: aten.embedding_dense_backward(g, t, 11, 2, False), r(3, 4, 5), i(11, 3, 4)),
    "gather": lambda: (lambda x, t: x.gather(1, t), r(4, 6), i(6, 4, 3)),
    "gather_middle": lambda: (lambda x, t: x.gather(1, t), r(4, 6, 2), i(6, 3, 5, 2)),
    "scatter_add": lambda: (lambda x, t, s: x.scatter_add(1, t, s), r(4, 6), i(6, 4, 9), r(4, 9)),
    "scatter": lambda: (lambda x, t: x.scatter(1, t, 3.0), r(4, 6), i(6, 4, 1)),
    "index": lambda: (lambda x, t, s: x[t, s] + x[t - 4, 1], r(4, 6), i(4, 5), i(6, 5)),
    "index_column": lambda: (lambda x, t: x[:, t], r(4, 6, 2), i(6, 5)),
    "index_put": lambda: (lambda x, t, s: aten.index_put(x, [t], s, True), r(4, 6), i(4, 9), r(9, 6)),
    "index_select": lambda: (lambda x, t: x.index_select(1, t), r(4, 6, 2), i(6, 5)),
    "one_hot": lambda: (lambda t: (t.unsqueeze(1) == torch.arange(7)).float() * 2, i(7, 5)),
    "nll": lambda: (lambda x, t: aten.nll_loss_forward(x, t, None, 1, 2), r(8, 5), i(5, 8)),
    "nll_sum": lambda: (lambda x, t: aten.nll_loss_forward(x, t, None, 2, -100), r(8, 5), i(5, 8)),
    "nll_weighted": lambda: (lambda x, t, w: aten.nll_loss_forward(x, t, w, 1, -100), r(8, 5), i(5, 8), p(5)),
    "nll_each": lambda: (lambda x, t: aten.nll_loss_forward(x, t, None, 0, 2)[0], r(8, 5), i(5, 8)),
    "nll_backward": lambda: (lambda g, x, t, n: aten.nll_loss_backward(g, x, t, None, 1, 2, n), r(), r(8, 5), i(5, 8), torch.tensor(6.0)),
    "nll_backward_weighted": lambda: (lambda g, x, t, w, n: aten.nll_loss_backward(g, x, t, w, 1, -100, n), r(), r(8, 5), i(5, 8), p(5), p()),
    "nll_backward_each": lambda: (lambda g, x, t, n: aten.nll_loss_backward(g, x, t, None, 0, 2, n), r(8), r(8, 5), i(5, 8), p()),
    "product_of_rows": lambda: (lambda w, t, v: aten.embedding(w, t) @ v, r(11, 5), i(11, 6), r(5, 7)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups(name: str) -> None:
    f, *args = LOOKUPS[name]()
    agree(f, *args)


def conv(stride: int, padding: int, dilation: int, rank: int = 2) -> Callable[..., Any]:
    def f(g: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Any:
        spread = [[n] * rank for n in (stride, padding, dilation)]
        y = aten.convolution(x, w, b, *spread, False, [0] * rank, 1)
        return (
            y,
            *aten.convolution_backward(
                g.expand(y.shape), x, w, [b.shape[0]], *spread, False, [0] * rank, 1, [True] * 3
            ),
        )

    return f


LAYERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "layer_norm": lambda: (lambda x, w, b: aten.native_layer_norm(x, [6], w, b, 1e-5), r(3, 4, 6), r(6), r(6)),
    "layer_norm_two": lambda: (lambda x, w: aten.native_layer_norm(x, [4, 6], w, None, 1e-5), r(3, 4, 6), r(4, 6)),
    "layer_norm_backward": lambda: (
        lambda g, x, w, b: aten.native_layer_norm_backward(g, x, [6], *aten.native_layer_norm(x, [6], w, b, 1e-5)[1:], w, b, [True] * 3),
        r(3, 4, 6), r(3, 4, 6), r(6), r(6)),
    "conv": lambda: (conv(1, 1, 1), r(2, 1, 1, 1), r(2, 3, 8, 8), r(5, 3, 3, 3), r(5)),
    "conv_strided": lambda: (conv(2, 1, 1), r(2, 1, 1, 1), r(2, 3, 9, 7), r(4, 3, 3, 3), r(4)),
    "conv_dilated": lambda: (conv(1, 2, 2), r(2, 1, 1, 1), r(2, 2, 9, 7), r(4, 2, 3, 2), r(4)),
    "conv_one": lambda: (conv(1, 0, 1), r(2, 1, 1, 1), r(2, 1, 5, 5), r(1, 1, 1, 1), r(1)),
    "conv_line": lambda: (conv(1, 1, 1, 1), r(2, 1, 1), r(2, 3, 9), r(4, 3, 3), r(4)),
    "pool": lambda: (lambda x: aten.max_pool2d_with_indices(x, [2, 2]), r(2, 3, 8, 6)),
    "pool_overlapping": lambda: (lambda x: aten.max_pool2d_with_indices(x, [3, 2], [2, 1], [1, 1]), r(2, 3, 8, 6)),
    "pool_backward": lambda: (
        lambda g, x: aten.max_pool2d_with_indices_backward(g, x, [3, 3], [2, 2], [1, 1], [1, 1], False, aten.max_pool2d_with_indices(x, [3, 3], [2, 2], [1, 1])[1]),
        r(2, 3, 4, 3), r(2, 3, 8, 6)),
    "batch_norm": lambda: (lambda x, w, b: aten._native_batch_norm_legit.no_stats(x, w, b, True, 0.1, 1e-5), r(5, 3, 4), r(3), r(3)),
    "attention": lambda: (
        lambda q, k, v: torch.bmm(torch.bmm(q, k.transpose(1, 2)).masked_fill(torch.ones(6, 6).triu(1) > 0, -torch.inf).softmax(-1), v),
        r(4, 6, 5), r(4, 6, 5), r(4, 6, 5)),
    "pad": lambda: (lambda x: aten.constant_pad_nd(x, [1, 2, -1, 3], 0.5), r(2, 4, 3)),
    "bce": lambda: (lambda x, y: torch.nn.functional.binary_cross_entropy_with_logits(x, y), r(4, 3), p(4, 3)),
    "smooth": lambda: (lambda x, y: torch.nn.functional.smooth_l1_loss(x, y), r(4, 3), r(4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    f, *args = LAYERS[name]()
    agree(f, *args)


def attention(causal: bool, scale: float | None = None, mask: bool = False) -> Callable[..., Any]:
    def f(g: Tensor, q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, ...]:
        how = {"attn_mask": m if mask else None, "scale": scale}
        y, logsumexp = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, **how)
        of = aten._scaled_dot_product_flash_attention_for_cpu_backward(g, q, k, v, y, logsumexp, 0.0, causal, **how)
        return (y, logsumexp, *of)

    return f


@pytest.mark.parametrize("sizes", [(2, 3, 7, 7, 5), (1, 2, 33, 33, 16), (3, 1, 1, 1, 4), (2, 2, 9, 4, 3), (1, 2, 130, 130, 17), (1, 1, 40, 70, 8)])  # fmt: skip
def test_attention(sizes: tuple[int, int, int, int, int]) -> None:
    batch, heads, now, then, width = sizes
    q, g = r(batch, heads, now, width), r(batch, heads, now, width)
    k, v = r(batch, heads, then, width), r(batch, heads, then, width)
    agree(attention(False), g, q, k, v, r(now, then))
    agree(attention(False, 0.3, True), g, q, k, v, r(now, then))
    if now == then:
        agree(attention(True), g, q, k, v, r(now, then))
        of_heads = r(batch, now, 3 * heads * width).split(heads * width, -1)  # as a model has them, side by side
        q, k, v = (t.view(batch, now, heads, width).transpose(1, 2) for t in of_heads)
        agree(attention(True, 0.2), g.transpose(1, 2).contiguous().transpose(1, 2), q, k, v, r(now, then))


# -- numbers that are none ---------------------------------------------------------------------------


def test_nan_and_infinity_go_through() -> None:
    special = torch.tensor(
        [1.0, torch.nan, -torch.inf, torch.inf, 0.0, -0.0, -1.0, 1e38, -1e38, 100.0, -200.0, 1e-40, 89.0]
    ).repeat(3)
    for name, f in {**UNARY, **POSITIVE}.items():
        if "gelu" in name:  # aten's own kernel gives NaN at infinity
            continue
        try:
            wanted = f(special)
        except RuntimeError:
            continue
        if isinstance(wanted, Tensor) and wanted.dtype == torch.float32:
            step = compiled(alone(f), [special])
            torch.testing.assert_close(step(special)[0], wanted, equal_nan=True, rtol=2e-6, atol=1e-37, msg=step.source)
    rows = special.repeat(7, 1)
    for f in (lambda x: x.amax(1), lambda x: x.amin(1), lambda x: x.argmax(1), lambda x: x.softmax(1), lambda x: x.amax(0), lambda x: x.sum(1),
              lambda x: x @ x.t(), lambda x: torch.maximum(x, x.flip(1)), lambda x: x[:, 2:4].amax(1), lambda x: x.argmin(1),
              lambda x: x[:, 2:3].softmax(1)):  # fmt: skip
        (mine,) = compiled(alone(f), [rows])(rows)
        torch.testing.assert_close(mine, f(rows), equal_nan=True)
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


def test_heads_are_put_side_by_side() -> None:
    for batch, heads, tokens, width in [
        (2, 3, 5, 4),
        (1, 3, 5, 4),
        (2, 1, 5, 4),
        (2, 3, 1, 4),
        (2, 3, 5, 1),
        (0, 3, 5, 4),
    ]:
        rows, places = batch * tokens, tokens * heads
        x, y = r(batch, heads, tokens, width), r(batch, heads, tokens, width)
        for shape in [
            (batch, tokens, heads * width),
            (rows, heads, width),
            (rows, heads * width),
            (batch, places, 1, width),
        ]:
            for dim in range(len(shape)):
                agree(partial(side_by_side, shape=shape, dim=dim), x, y)
    agree(lambda x: torch.cat([x.t().reshape(6, 10), x.t().reshape(6, 10) * 2, x.t().reshape(6, 10)], 1), r(5, 12))


# -- memory ------------------------------------------------------------------------------------------


def test_writes_in_place_see_old_values() -> None:
    cases: list[tuple[Callable[..., tuple[Tensor, ...]], dict[int, int]]] = [
        (lambda x, y: (x + y, x * y), {0: 0, 1: 1}),
        (lambda x, y: (y * 1, x * 1), {0: 0, 1: 1}),
        (lambda x, y: (y, x), {0: 0, 1: 1}),
        (lambda x, y: (x.t(), x @ y), {0: 0, 1: 1}),
        (lambda x, y: (x @ y, x.sum(), x.t() * 2), {0: 0}),
        (lambda x, y: (x - 0.1 * (x.t() @ y), y - x.sum(0)), {0: 0, 1: 1}),
        (lambda x, y: (x.flip(0), y.sum(0, keepdim=True) + y), {0: 0, 1: 1}),
        (lambda x, y: (x * 2, x * 2, (x * 2).sum()), {0: 0, 1: 1}),
        (lambda x, y: (torch.cat([x[1:], y[:1]]), y.scatter_add(1, (x > 0).long(), x)), {0: 0, 1: 1}),
        (lambda x, y: (torch.softmax(x, 0), torch.softmax(x @ y, 1)), {0: 0, 1: 1}),
        (lambda x, y: (y, y + 1), {0: 0, 1: 1}),
    ]
    for f, written in cases:
        for layout in (lambda t: t.clone(), lambda t: t.t().clone().t(), lambda t: torch.stack([t, t], 2)[:, :, 0]):
            x, y = r(6, 6), r(6, 6)
            wanted = f(x, y)
            mine = [layout(x), layout(y)]
            step = compiled(f, mine, written)
            others = iter(step(*mine))
            for place, result in enumerate(wanted):
                at = [k for k, v in written.items() if v == place]
                torch.testing.assert_close(mine[at[0]] if at else next(others), result, msg=step.source)


def test_steps_share_no_memory() -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (torch.softmax(x @ y, 1).t() @ x,)

    x, y = r(20, 30), r(30, 40)
    one, other = compiled(f, [x, y]), compiled(f, [x, y])
    assert one._library._name == other._library._name
    scratch = [torch.empty(step.arena, dtype=torch.uint8) for step in (one, other)]
    kept = one.bind({}, scratch[0])(x, y)[0].clone()
    other.bind({}, scratch[1])(2 * x, y)
    torch.testing.assert_close(one.bind({}, scratch[0])(x, y)[0], kept)
    (first,) = one(x, y)
    kept = first.clone()
    (second,) = one(x * 2, y)
    assert torch.equal(first, kept) and not torch.equal(first, second)


def test_bound_tensors_are_looked_up_once() -> None:
    x, w = r(4, 3), r(3, 2)
    graph = graph_of(lambda x, w: (x @ w, w * 2), [x, w])
    places = [n for n in graph.nodes if n.op == "placeholder"]
    results = next(n for n in graph.nodes if n.op == "output").args[0]
    step = compile_c(graph, [results[0]], {places[1]: results[1]})
    call, old = step.bind({places[1]: w}), w.clone()
    torch.testing.assert_close(call(x)[0], x @ old)
    torch.testing.assert_close(w, old * 2)
    torch.testing.assert_close(call(x)[0], x @ old * 2)


def test_indices_out_of_range_change_nothing() -> None:
    w = r(5, 3)
    step = compiled(lambda w, t: (w * 2, aten.embedding(w, t)), [w, i(5, 4)], {0: 0})
    before = w.clone()
    for bad in (5, -1):
        with pytest.raises(Exception, match=r"x1: an index is outside of 0 to 4"):
            step(w, torch.tensor([0, bad, 1, 2]))
        assert torch.equal(w, before)


PARALLEL: dict[str, Callable[[], tuple[Any, ...]]] = {
    "line": lambda: (lambda x: (x * 2, x.sum(), x.amin()), r(300_007)),
    "all": lambda: (lambda x: (x.sum(), x.mean(), (x > 3).any(), (x * 10).long().sum()), r(1031, 257)),
    "columns": lambda: (lambda x: (x.sum(0), x.amax(0), x.exp().mean(0)), r(1031, 257)),
    "columns_of_stacks": lambda: (lambda x: (x.sum((0, 1)), x.sum((0, 2))), r(5, 207, 257)),
    "rows_and_columns": lambda: (lambda x: (x - x.sum(1, keepdim=True), (x - x.sum(1, keepdim=True)).sum(0)), r(1031, 257)),
    "product_and_columns": lambda: (lambda x, w: (torch.relu(x @ w), torch.relu(x @ w).sum(0), x.sum(0)), r(1031, 64), r(64, 100)),
    "few_rows": lambda: (lambda x: (x.sum(0), x.sum()), r(2, 200_003)),
    "layer_norm_backward": lambda: (
        lambda g, x, m, s, w: aten.native_layer_norm_backward(g, x, [257], m, s, w, w, [True] * 3),
        r(1031, 257), r(1031, 257), r(1031, 1), p(1031, 1), r(257)),
    "attention": lambda: (attention(True), r(3, 2, 130, 33), *(r(3, 2, 130, 33) for _ in range(3)), r(1)),
    "embedding_backward": lambda: (
        lambda g, t: (aten.embedding_dense_backward(g, t, 300, -1, False), g.sum(0), g.sum((0, 1))), r(5, 207, 257), i(300, 5, 207)),
}  # fmt: skip


@pytest.mark.parametrize("name", PARALLEL)
@pytest.mark.parametrize("threads", [2, 3])
def test_sums_in_parts(name: str, threads: int) -> None:
    f, *args = PARALLEL[name]()
    step = compiled(lambda *x: tuple(y) if isinstance(y := f(*x), tuple | list) else (y,), args, threads=threads)
    assert "parallel" in step.source
    mine = step(*args)
    for given, single, true in zip(mine, f(*args), f(*map(wide, args)), strict=True):
        assert_same(given, single, true, step.source)
    for first, again in zip(mine, step(*args), strict=True):
        assert torch.equal(first, again)


def test_threads_change_nothing() -> None:
    def f(x: Tensor, w: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        y = torch.relu(x @ w)
        return w - 0.1 * (x.t() @ y), y.sum(0), torch.bmm(s, s.transpose(1, 2)).softmax(-1), (x.exp() * 2).sum()

    given = [r(500, 300), r(300, 60), r(20, 70, 90)]
    alone, together = [a.clone() for a in given], [a.clone() for a in given]
    one, two = compiled(f, alone, {1: 0}), compiled(f, together, {1: 0}, threads=2)
    assert "omp parallel" in two.source and "omp parallel" not in one.source
    for a, b in zip([*one(*alone), alone[1]], [*two(*together), together[1]], strict=True):
        torch.testing.assert_close(a, b)
    assert one.large_products == () and compiled(f, [r(500, 900), r(900, 60), given[2]]).large_products != ()


# -- refusals ----------------------------------------------------------------------------------------


def test_what_has_no_spelling_is_said() -> None:
    with pytest.raises(NoSpelling, match=r"aten.cumsum.*another engine"):
        compiled(lambda x: (x.cumsum(0),), [r(3)])
    with pytest.raises(NoSpelling, match=r"no C type for torch.complex64"):
        compiled(lambda x: (x * 2,), [r(3).to(torch.complex64)])


def test_a_compiler_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    build.compiler.cache_clear()
    try:
        with pytest.raises(NoCompiler, match="no C compiler 'no-such-compiler' is found"):
            compiled(lambda x: (x * 2.5,), [r(3)])
    finally:
        build.compiler.cache_clear()


# -- random programs ---------------------------------------------------------------------------------


Operation = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
OPERATIONS: list[Operation] = [  # of a matrix, another one, and one that it can be multiplied with
    lambda x, y, z: x.tanh(),
    lambda x, y, z: x.t() * 0.5,
    lambda x, y, z: x - x.mean(1, keepdim=True),
    lambda x, y, z: x + x.sum(0),
    lambda x, y, z: x.softmax(1),
    lambda x, y, z: torch.where(x > 0, x, x * 0.1),
    lambda x, y, z: x * y if x.shape == y.shape else x.amax(1, keepdim=True) * x,
    lambda x, y, z: x @ z * 0.3 if z is not None else x.sigmoid(),
    lambda x, y, z: (x.t() @ x).tanh(),
    lambda x, y, z: x.reshape(x.shape[1], x.shape[0]),
    lambda x, y, z: torch.cat([x, x.flip(1)], 1)[:, ::2],
    lambda x, y, z: x[: (x.shape[0] + 1) // 2],
]


def random_program(seed: int) -> tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]:
    """Some operations on matrices; what was made last goes into new values of the arguments, too."""
    choose = random.Random(seed)
    sizes = [choose.choice([1, 2, 3, 5, 8, 17]) for _ in range(3)]
    shapes = [(choose.choice(sizes), choose.choice(sizes)) for _ in range(4)]
    steps = [(choose.choice(OPERATIONS), choose.random(), choose.random()) for _ in range(choose.randint(3, 14))]

    def program(*given: Tensor) -> tuple[Tensor, ...]:
        values = list(given)
        for operation, one, other in steps:
            x, y = values[int(one * len(values))], values[int(other * len(values))]
            fits = [v for v in values if v.shape[0] == x.shape[1]]
            values.append(operation(x, y, fits[int(other * len(fits))] if fits else None))
        made = values[len(given) :][-3:]
        news = [a - 0.1 * next((v for v in reversed(made) if v.shape == a.shape), a) for a in given]
        return (*news, *made, values[-1].sum())

    return program, [r(*shape) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed: int, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    program, args = random_program(seed)
    args = [a.to(dtype) for a in args]
    wanted = program(*map(wide, args))
    mine = [a.clone() for a in args]
    step = compiled(program, mine, {k: k for k in range(len(args))})
    near = 1e-11 if dtype == torch.float64 else 1e-4
    for a, b in zip([*mine, *step(*mine)], wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=near, atol=near, msg=step.source)
