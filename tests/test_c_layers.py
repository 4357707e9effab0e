"""Engine "c": products, lookups, layers and attention against aten in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from in_c import Call, agree, agree_each, aten, attention, i, p, r
from torch import Tensor

from chainrule.compiling.c import step
from chainrule.compiling.c.products import Machine


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (64, 48, 48), (7, 33, 50), (2, 100, 2),
                                   (65, 3, 17), (6, 20, 130), (0, 3, 4), (3, 0, 4), (31, 2500, 9), (100, 4, 2)])  # fmt: skip
def test_products(sizes: tuple[int, int, int]) -> None:
    rows, depth, columns = sizes
    calls: list[Call] = []
    for turned in itertools.product([False, True], repeat=2):
        a = r(depth, rows).t() if turned[0] else r(rows, depth)
        b = r(columns, depth).t() if turned[1] else r(depth, columns)
        calls.append((lambda a, b: a @ b, (a, b)))
        calls.append((lambda a, b, c: torch.relu(torch.addmm(c, a, b, beta=2, alpha=0.5)), (a, b, r(columns))))
    calls += [
        (lambda a, b: (a @ b).t().exp().sum(0), (r(rows, depth), r(depth, columns))),
        (torch.bmm, (r(3, rows, depth), r(3, depth, columns))),
        (lambda a, b: a @ b.mT * 2, (r(2, depth, rows).mT, r(2, columns, depth))),
        (torch.mv, (r(rows, depth), r(depth))),
    ]
    agree_each(calls)


@pytest.mark.parametrize("small", [Machine(32, 16), Machine(16, 16)])
def test_products_in_narrow_registers(small: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "machine", lambda: small)
    calls: list[Call] = []
    for rows, depth, columns in [(7, 5, 17), (7, 5, 20), (3, 4, 9), (30, 20, 33), (2, 3, 5)]:
        calls.append((lambda a, b: a @ b, (r(rows, depth), r(depth, columns))))
        calls.append((attention(True), (*(r(1, 2, columns, depth) for _ in range(4)), r(1))))
    agree_each(calls)


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


@pytest.mark.parametrize("sizes", [(2, 3, 7, 7, 5), (1, 2, 33, 33, 16), (3, 1, 1, 1, 4), (2, 2, 9, 4, 3), (1, 2, 130, 130, 17), (1, 1, 40, 70, 8)])  # fmt: skip
def test_attention(sizes: tuple[int, int, int, int, int]) -> None:
    batch, heads, now, then, width = sizes
    q, g = r(batch, heads, now, width), r(batch, heads, now, width)
    k, v = r(batch, heads, then, width), r(batch, heads, then, width)
    calls: list[Call] = [
        (attention(False), (g, q, k, v, r(now, then))),
        (attention(False, 0.3, True), (g, q, k, v, r(now, then))),
    ]
    if now == then:
        calls.append((attention(True), (g, q, k, v, r(now, then))))
        of_heads = r(batch, now, 3 * heads * width).split(heads * width, -1)  # as a model has them, side by side
        q, k, v = (t.view(batch, now, heads, width).transpose(1, 2) for t in of_heads)
        apart = g.transpose(1, 2).contiguous().transpose(1, 2)
        calls.append((attention(True, 0.2), (apart, q, k, v, r(now, then))))
    agree_each(calls)
