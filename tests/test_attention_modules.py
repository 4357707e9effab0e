"""torch's attention and Transformer layers, and scaled dot-product attention in all its forms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_close, assert_gradients, run_emitted
from torch import Tensor, nn

import chainrule as cr

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def rand(*shape: int) -> Tensor:
    return torch.randn(size=shape, dtype=torch.float64)


def weighed(out: Tensor) -> Tensor:
    return (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)).sum()


def right(f: Callable[..., Tensor], *args: Tensor, parameters: Any = (), emit: bool = True) -> cr.Derivation:
    """Derived, in emitted code and by autograd, with the same seed: one value and one gradient."""

    def seeded(*args: Tensor) -> Tensor:
        torch.manual_seed(3)
        return weighed(f(*args)) + torch.rand(()).double()  # the generator, too, is where torch leaves it

    leaves = [a.clone().requires_grad_() for a in args]
    asked = [*leaves, *parameters]
    value = seeded(*leaves)
    truth = torch.autograd.grad(value, asked, allow_unused=True)
    d = cr.derive(seeded, *leaves)
    assert d.fallbacks == []
    assert_close(d.output, value)
    found = {id(tensor): gradient for tensor, gradient in d.pairs()}
    for tensor, theirs in zip(asked, truth, strict=True):
        assert_close(found.get(id(tensor)), theirs)
    if emit:
        _, emitted = run_emitted(d, *(d[name].value.clone() for name in d.inputs))
        assert_gradients(emitted, d.grads)
    return d


def layer_right(layer: nn.Module, f: Callable[..., Tensor], *args: Tensor, **how: Any) -> cr.Derivation:
    return right(f, *args, parameters=list(layer.double().parameters()), **how)


CAUSAL = torch.ones(4, 4, dtype=torch.bool).tril()
LONELY = torch.tensor([[True, False, True, True], [False] * 4, [True] * 4, [False, True, False, False]])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"is_causal": True},
    {"attn_mask": CAUSAL},
    {"attn_mask": LONELY},
    {"attn_mask": torch.zeros(4, 4).double().masked_fill(~LONELY, float("-inf"))},
    {"scale": 0.3},
    {"dropout_p": 0.4},
    {"dropout_p": 0.4, "attn_mask": CAUSAL, "scale": 2.0},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_attention(options: dict[str, Any]) -> None:
    q, k, v = rand(2, 3, 4, 5), rand(2, 3, 4, 5), rand(2, 3, 4, 6 if "dropout_p" not in options else 5)
    right(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), q, k, v)


def test_a_mask_that_is_learnt() -> None:
    right(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), *(rand(2, 4, 5) for _ in "qkv"), rand(4, 4))


def test_queries_in_groups() -> None:
    q, k, v = rand(2, 6, 4, 5), rand(2, 2, 3, 5), rand(2, 3, 3, 5)
    right(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), q, k, v)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": rand(4, 4)}, {"scale": 0.5}])
def test_the_spellings_inside_torch(options: dict[str, Any]) -> None:
    q, k, v = rand(2, 3, 4, 5), rand(2, 3, 4, 5), rand(2, 3, 4, 5)
    aten = torch.ops.aten
    right(lambda q, k, v: aten._scaled_dot_product_attention_math(q, k, v, **options)[0], q, k, v)
    right(lambda q, k, v: aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, **options)[0], q, k, v)
    right(lambda q, k, v: aten.scaled_dot_product_attention(q, k, v, **options), q, k, v)


def test_the_weights_of_attention() -> None:
    kept = torch.rand(2, 4, 4) > 0.3

    def both(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, weights = torch._scaled_dot_product_attention_math(q, k, v, dropout_p=0.3, dropout_mask=kept)
        return torch.cat([out.flatten(), weights.flatten()])

    right(both, rand(2, 4, 5), rand(2, 4, 5), rand(2, 4, 5))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("call", [
    {}, {"need_weights": False}, {"average_attn_weights": False}, {"attn_mask": ~CAUSAL},
    {"attn_mask": torch.zeros(4, 4).double().masked_fill(~CAUSAL, -1e9)},
    {"key_padding_mask": torch.tensor([[False, False, True, True], [False] * 4])},
    {"key_padding_mask": torch.tensor([[False, False, True, True], [False] * 4]), "attn_mask": ~CAUSAL, "need_weights": False},
    {"attn_mask": ~CAUSAL, "is_causal": True, "need_weights": False},
])  # fmt: skip
def test_multi_head_self_attention(call: dict[str, Any], training: bool) -> None:
    layer = nn.MultiheadAttention(6, 2, dropout=0.2, batch_first=True).train(training)

    def forward(x: Tensor) -> Tensor:
        out, weights = layer(x, x, x, **call)
        return out if weights is None else torch.cat([out.flatten(), weights.flatten()])

    layer_right(layer, forward, rand(2, 4, 6))


@pytest.mark.parametrize("made", [
    {}, {"bias": False}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True}, {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "kdim": 5, "vdim": 3},
])  # fmt: skip
def test_multi_head_attention_to_another_sequence(made: dict[str, Any]) -> None:
    layer = nn.MultiheadAttention(6, 3, **made)
    padding = torch.tensor([[False, False, True], [False, True, False]])

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, weights = layer(q, k, v, key_padding_mask=padding)
        return torch.cat([out.flatten(), weights.flatten()])

    layer_right(layer, forward, rand(4, 2, 6), rand(3, 2, made.get("kdim", 6)), rand(3, 2, made.get("vdim", 6)))


def test_multi_head_attention_without_a_batch() -> None:
    layer = nn.MultiheadAttention(6, 2)
    layer_right(layer, lambda x: layer(x, x, x, attn_mask=~CAUSAL)[0], rand(4, 6))


LAYER: dict[str, Any] = {"d_model": 6, "nhead": 2, "dim_feedforward": 8, "dropout": 0.3, "batch_first": True}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("made", [{}, {"norm_first": True, "activation": "gelu"}, {"bias": False}])
def test_encoder_layer(made: dict[str, Any], training: bool) -> None:
    layer = nn.TransformerEncoderLayer(**LAYER, **made).train(training)
    layer_right(layer, lambda x: layer(x, src_mask=~CAUSAL), rand(2, 4, 6))


@pytest.mark.parametrize("training", [True, False])
def test_encoder_with_padding(training: bool) -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**LAYER), 2).train(training)
    padding = torch.tensor([[False, False, False, True], [False] * 4])
    layer_right(encoder, lambda x: encoder(x, src_key_padding_mask=padding), rand(2, 4, 6))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("made", [{}, {"norm_first": True}])
def test_decoder_layer(made: dict[str, Any], training: bool) -> None:
    layer = nn.TransformerDecoderLayer(**LAYER, **made).train(training)
    layer_right(layer, lambda x, memory: layer(x, memory, tgt_mask=~CAUSAL), rand(2, 4, 6), rand(2, 3, 6))


def test_the_whole_transformer() -> None:
    made = {k: v for k, v in LAYER.items() if k not in ("batch_first", "dropout")}
    model = nn.Transformer(**made, num_encoder_layers=1, num_decoder_layers=1, dropout=0.1)
    mask = model.generate_square_subsequent_mask(4).double()
    layer_right(model, lambda x, y: model(x, y, tgt_mask=mask), rand(3, 2, 6), rand(4, 2, 6))


def test_the_fast_path_is_not_taken_where_nothing_requires_a_gradient() -> None:
    layer = nn.TransformerEncoderLayer(**LAYER).double().eval().requires_grad_(False)
    x = rand(2, 4, 6)
    d = cr.derive(lambda x: layer(x).tanh().sum(), x, wrt="x")
    assert d.fallbacks == []
    assert_close(d.output, layer(x).tanh().sum())
    assert d.verify()


def test_softmax_over_an_axis_that_torch_chooses() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for shape in ((4,), (3, 4), (2, 3, 4), (2, 3, 2, 2)):
            right(F.softmax, rand(*shape))
            right(F.log_softmax, rand(*shape))
            right(F.softmin, rand(*shape))
            right(nn.Softmax(), rand(*shape))


def test_tables_and_bags() -> None:
    rows, table = torch.tensor([[0, 2, 1], [2, 4, 1]]), rand(5, 3)
    right(lambda w: torch.embedding(w, rows, 1), table)
    right(lambda w: torch.embedding(w, rows), table)
    right(lambda w: torch.embedding_bag(w, rows.flatten(), torch.tensor([0, 2]), mode=1)[0], table)


@pytest.mark.parametrize("look_up", [F.embedding, F.embedding_bag])
def test_long_rows_are_shortened_once(look_up: Callable[..., Tensor]) -> None:
    rows, given = torch.tensor([[0, 2], [2, 4]]), 2 * rand(5, 3)

    def loss(w: Tensor) -> Tensor:
        return (look_up(rows, w, max_norm=1.0) ** 3).sum() + (look_up(rows, w, max_norm=0.5, norm_type=1.0)).exp().sum()

    theirs, ours = given.clone().requires_grad_(), given.clone()
    loss(theirs).backward()
    d = cr.derive(loss, ours)
    assert d.fallbacks == []
    assert torch.equal(ours, theirs.detach())
    assert_close(d.grads["w"], theirs.grad)
    d.source("function")
