"""Products in bfloat16: gradients near float32's, and everything else in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr
from chainrule.compiling.graph.precision import PRODUCTS

TOKENS = torch.arange(24).remainder(7).view(3, 8)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(7, 16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        h = self.norm(self.embedding(tokens))
        q, k, v = (part.view(3, 8, 2, 8).transpose(1, 2) for part in self.qkv(h).split(16, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(3, 8, 16)
        return F.cross_entropy((h + self.out(mixed)).flatten(0, 1) @ self.embedding.weight.T, targets.flatten())


def matrix() -> Any:
    w, b = torch.randn(16, 5, requires_grad=True), torch.zeros(5, requires_grad=True)
    return lambda x: (x @ w + b).tanh().square().mean(), (torch.randn(64, 16),)


def perceptron() -> Any:
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 5))
    return lambda x, y: F.cross_entropy(model(x), y), (torch.randn(64, 16), torch.randint(0, 5, (64,)))


def convolution() -> Any:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 5))
    return lambda x, y: F.cross_entropy(model(x), y), (torch.randn(16, 2, 8, 8), torch.randint(0, 5, (16,)))


def attention() -> Any:
    return Attention(), (TOKENS, TOKENS.roll(1, 1))


def batched() -> Any:
    w = torch.randn(4, 6, 5, requires_grad=True)
    return lambda x: torch.bmm(x, w).square().mean(), (torch.randn(4, 9, 6),)


@pytest.mark.parametrize("engine", ["torch", "inductor"])
@pytest.mark.parametrize("program", [matrix, perceptron, convolution, attention, batched], ids=lambda p: p.__name__)
def test_gradients(program: Callable[[], Any], engine: str) -> None:
    if engine == "inductor" and program is not perceptron:
        pytest.skip("one program through inductor is enough: all engines read the same graph")
    torch.manual_seed(0)
    forward, batch = program()
    (loss, found), step = (
        cr.compile(forward, *batch)(*batch),
        cr.compile(forward, *batch, dtype=torch.bfloat16, engine=engine),
    )
    rough, gradients = step(*batch)
    assert rough != loss
    torch.testing.assert_close(rough, loss, rtol=0.02, atol=0.0)
    largest = max(truth.norm() for truth in found.values())
    for name, truth in found.items():
        assert gradients[name].dtype == torch.float32
        assert (gradients[name] - truth).norm() <= 0.03 * truth.norm() + 0.01 * largest, name
    products = [n for n in step.plan().lowered.graph.nodes if n.target in PRODUCTS]
    assert len(products) >= 2
    for node in products:
        rounded, _ = PRODUCTS[node.target]
        assert {node.args[i].meta["val"].dtype for i in rounded if node.args[i] is not None} == {torch.bfloat16}
    others = [n for n in step.plan().lowered.graph.nodes if n.op == "call_function" and n not in products]
    for node in others:  # no arithmetic but products: what is in bfloat16 is moved, not computed with
        value = node.meta["val"]
        if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
            assert torch.Tag.pointwise not in getattr(node.target, "tags", ()) or "copy" in str(node.target), node


def test_training() -> None:
    torch.manual_seed(0)
    forward, batch = perceptron()
    params = list(cr.compile(forward, *batch).plan().lowered.params.values())
    step = cr.compile(forward, *batch, dtype=torch.bfloat16, optimizer=cr.AdamW(lr=0.01))
    losses = step.run([batch] * 40)
    assert losses[-1] < 0.7 * losses[0]
    assert {p.dtype for p in params} == {torch.float32}
    assert {m.dtype for m in step.state.values()} == {torch.float32}
    assert "bfloat16" in str(step.plan())


def test_an_engine_that_has_no_such_type() -> None:
    forward, batch = matrix()
    with pytest.warns(RuntimeWarning, match="no C type for torch.bfloat16"):
        step = cr.compile(forward, *batch, dtype=torch.bfloat16, engine="c")
    assert step.plan().engine == "torch"
