"""Repeated layers are written once: the emitted code is right, at other sizes and with other parameters too."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_close, namespace_of
from torch import Tensor, nn

import chainrule as cr

WIDTH = 6


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


class Block(nn.Module):
    """A block with attention of one head and two linear maps, each around a normalisation and a residual path."""

    def __init__(self, activation: Any = F.gelu, bias: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=bias), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.activation, self.drop = activation, drop

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        scores = q @ k.mT / WIDTH**0.5
        if mask is not None:
            scores = scores + mask
        x = x + self.out(scores.softmax(-1) @ v)
        hidden = self.activation(self.up(self.norm2(x)))
        return x + F.dropout(self.down(hidden), self.drop, self.training)


class Net(nn.Module):
    def __init__(self, *blocks: Block, first: int = 0) -> None:
        super().__init__()
        self.embed = nn.Linear(3, WIDTH)
        self.blocks = nn.ModuleDict({str(first + i): b for i, b in enumerate(blocks)})
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.embed(x)
        for block in self.blocks.values():
            h = block(h, mask) if mask is not None else block(h)
        return (self.head(h) ** 2).mean()


def net(*blocks: Block, **how: Any) -> Net:
    torch.manual_seed(0)
    made = Net(*blocks, **how).double()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.5)
    return made


def gradients(model: nn.Module, *args: Tensor) -> dict[str, Tensor | None]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(model(*args), parameters, allow_unused=True)
    return dict(zip(names, found, strict=True))


def assert_right_elsewhere(model: nn.Module, d: cr.Derivation, *args: Tensor) -> str:
    """Run the emitted code with other parameters and with other inputs; returns it."""
    source = d.source("function")
    function = namespace_of(source)["forward_and_backward"]
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.7)
    held = dict(model.state_dict(keep_vars=True))
    with torch.no_grad():
        loss, found = function(*args, {n: t.detach() for n, t in held.items()})
    assert_close(loss, model(*args))
    for name, gradient in gradients(model, *args).items():
        assert_close(found[name], gradient)
    return source


def test_layers_stand_once() -> None:
    model = net(Block(), Block(), Block())
    d = cr.derive(model, rand(4, 5, 3))
    assert d.fallbacks == []
    source = assert_right_elsewhere(model, d, rand(2, 7, 3))
    assert source.count("def block_forward(") == source.count("def block_backward(") == 1
    assert source.count(".softmax(") == 1
    assert 'below(p, f"blocks.{i}.") for i in range(3)' in source


def test_the_length_does_not_grow_with_the_layers() -> None:
    lengths = {len(cr.derive(net(*[Block() for _ in range(n)]), rand(4, 5, 3)).source("function")) for n in (3, 9)}
    assert len(lengths) == 1


def test_a_derivation_takes_its_inputs_in_order() -> None:
    model, x = net(Block(), Block(), Block()), rand(4, 5, 3)
    d = cr.derive(model, x)
    assert "x" in d.inputs
    loss, found = d.function(*(d[name].value for name in d.inputs))
    assert_close(loss, model(x))
    for name, gradient in gradients(model, x).items():
        assert_close(found[name], gradient)


def test_what_all_layers_share_is_handed_to_each() -> None:
    model, mask = net(Block(), Block(), Block()), rand(5, 5)
    source = assert_right_elsewhere(model, cr.derive(model, rand(4, 5, 3), mask), rand(2, 7, 3), rand(7, 7))
    assert "def block_forward(h, p, mask)" in source


def test_masks_are_given_to_their_layers() -> None:
    model = net(*[Block(drop=0.3) for _ in range(3)])
    torch.manual_seed(1)
    d = cr.derive(model, rand(4, 5, 3))
    source = d.source("function")
    assert "def block_forward(h, p, mask)" in source
    torch.manual_seed(1)
    for name, gradient in gradients(model, rand(4, 5, 3)).items():
        assert_close(d.grads[name], gradient)
    loss, found = d.function(*(d[name].value for name in d.inputs))
    assert_close(loss, d.output)
    for name, gradient in found.items():
        assert_close(gradient, d.grads[name])


def test_numbers_that_begin_elsewhere() -> None:
    model = net(Block(), Block(), Block(), first=2)
    source = assert_right_elsewhere(model, cr.derive(model, rand(4, 5, 3)), rand(2, 7, 3))
    assert "for i in range(2, 5)]" in source


def test_an_upstream_gradient() -> None:
    model, x, upstream = net(Block(), Block(), Block()), rand(4, 5, 3), rand(4, 5, 2)

    def forward(x: Tensor) -> Tensor:
        h = model.embed(x)
        for block in model.blocks.values():
            h = block(h)
        return model.head(h)

    d = cr.derive(forward, x, upstream=upstream)
    assert "_backward(" in d.source("function")
    names, parameters = zip(*model.named_parameters(), strict=True)
    truth = torch.autograd.grad(forward(x), parameters, upstream)
    for name, gradient in zip(names, truth, strict=True):
        assert_close(d.grads[f"model.{name}"], gradient)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([Block(), Block(torch.relu), Block()], id="another activation"),
        pytest.param([Block(), Block(bias=False), Block()], id="a bias is missing"),
        pytest.param([Block(torch.tanh), Block(), Block(), Block()], id="all but the first"),
        pytest.param([Block(), Block(), Block(), Block(torch.tanh)], id="all but the last"),
    ],
)
def test_layers_that_differ(blocks: list[Block]) -> None:
    model = net(*blocks)
    assert_right_elsewhere_flat(model, cr.derive(model, rand(4, 5, 3)), rand(2, 7, 3))


def test_a_frozen_layer() -> None:
    model = net(*[Block() for _ in range(4)])
    model.blocks["1"].requires_grad_(False)
    x = rand(4, 5, 3)
    d = cr.derive(model, x)
    d.source("function")
    asked = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    for (name, _), gradient in zip(asked, torch.autograd.grad(model(x), [p for _, p in asked]), strict=True):
        assert_close(d.grads[name], gradient)


def assert_right_elsewhere_flat(model: nn.Module, d: cr.Derivation, *args: Tensor) -> None:
    """The same where the code may take its tensors one by one."""
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.7)
    held = {**dict(model.named_parameters()), "x": args[0]}
    loss, found = d.function(*(held[name].detach() for name in d.inputs))
    assert_close(loss, model(*args))
    for name, gradient in gradients(model, *args).items():
        assert_close(found[name], gradient)


class Scaled(Block):
    """A block that asks for its sizes, so that each layer holds for some condition."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        rows, columns = x.shape[1:]
        assert rows > 1
        return super().forward(x / math.sqrt(columns // 2), mask)


def test_conditions_of_every_layer_do_not_keep_them_apart() -> None:
    model = net(Scaled(), Scaled(), Scaled())
    source = assert_right_elsewhere(model, cr.derive(model, rand(4, 5, 3)), rand(2, 7, 3))
    assert source.count("def block_forward(") == 1
    assert sum("assert" in line and "// 2" in line for line in source.splitlines()) < 3


def test_torchs_own_encoder() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 3).double()
    d = cr.derive(lambda x: encoder(x).pow(2).mean(), rand(2, 5, 8))
    assert d.fallbacks == []
    assert d.source("function").count("def layer_backward(") == 1
