"""torch's normalisation layers: gradients as autograd has them, running statistics that move exactly once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_close, assert_gradients, run_emitted
from torch import Tensor, nn

import chainrule as cr


def rand(*shape: int) -> Tensor:
    return torch.randn(size=shape, dtype=torch.float64)


def scrambled(layer: nn.Module) -> nn.Module:
    """With parameters and running statistics that are not ones and zeros."""
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5)
        for name, buffer in layer.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return layer


def right(layer: nn.Module, x: Tensor, runs: int = 1) -> cr.Derivation:
    """Derived, in emitted code and by autograd one gradient; the buffers are where torch's run leaves them."""
    twin = copy.deepcopy(layer)

    def loss(module: nn.Module, x: Tensor) -> Tensor:
        out = module(x)
        for _ in range(runs - 1):
            out = module(out * x)
        return (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).tanh().sum()

    leaf = x.clone().requires_grad_()
    theirs = torch.autograd.grad(loss(twin, leaf), [leaf, *twin.parameters()])
    mine = x.clone().requires_grad_()
    d = cr.derive(lambda x: loss(layer, x), mine)
    assert d.fallbacks == []
    by_tensor = {id(tensor): gradient for tensor, gradient in d.pairs()}
    for tensor, truth in zip([mine, *layer.parameters()], theirs, strict=True):
        assert_close(by_tensor[id(tensor)], truth)
    _, emitted = run_emitted(d, *(d[name].value.clone() for name in d.inputs))
    assert_gradients(emitted, d.grads)
    for ours, truth in zip(layer.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, truth)
    before = [b.clone() for b in layer.buffers()]
    assert d.verify()
    d.function()
    for ours, then in zip(layer.buffers(), before, strict=True):
        assert torch.equal(ours, then)
    return d


BATCHES = [
    pytest.param(nn.BatchNorm1d, (5, 3), id="1d without a length"),
    pytest.param(nn.BatchNorm1d, (5, 3, 4), id="1d"),
    pytest.param(nn.BatchNorm2d, (4, 3, 2, 3), id="2d"),
    pytest.param(nn.BatchNorm3d, (3, 3, 2, 2, 2), id="3d"),
]
OPTIONS = [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False, "momentum": 0.5, "eps": 0.1}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "shape"), BATCHES)
def test_batch_norm(
    kind: Callable[..., nn.Module], shape: tuple[int, ...], training: bool, options: dict[str, object]
) -> None:
    right(scrambled(kind(3, **options)).train(training), rand(*shape))


def test_batch_norm_twice_in_one_run() -> None:
    layer = scrambled(nn.BatchNorm1d(3))
    right(layer, rand(5, 3), runs=2)
    assert layer.num_batches_tracked == 2


def test_batch_norm_in_training_and_then_by_what_it_learnt() -> None:
    x, mean, var = rand(5, 3), rand(3), rand(3).abs()
    given = mean.clone(), var.clone()

    def loss(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return (F.batch_norm(x, mean, var, training=True) * F.batch_norm(x, mean, var)).exp().sum()

    leaf = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad(loss(leaf, *given), leaf)
    d = cr.derive(loss, x, mean, var, wrt="x")
    assert_close(d.grads["x"], truth)
    torch.testing.assert_close((mean, var), given)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"affine": True}, {"affine": True, "track_running_stats": True, "momentum": 0.3}]
)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [(nn.InstanceNorm1d, (4, 3, 5)), (nn.InstanceNorm2d, (2, 3, 4, 3)), (nn.InstanceNorm3d, (2, 3, 2, 2, 2)),
     (nn.InstanceNorm2d, (3, 4, 3))],
)  # fmt: skip
def test_instance_norm(
    kind: Callable[..., nn.Module], shape: tuple[int, ...], options: dict[str, object], training: bool
) -> None:
    right(scrambled(kind(3, **options)).train(training), rand(*shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        pytest.param(lambda: nn.GroupNorm(2, 4), (3, 4), id="group, no places"),
        pytest.param(lambda: nn.GroupNorm(2, 4), (3, 4, 5), id="group"),
        pytest.param(lambda: nn.GroupNorm(3, 6, affine=False), (2, 6, 2, 3), id="group, not affine"),
        pytest.param(lambda: nn.LayerNorm(4), (3, 4), id="layer"),
        pytest.param(lambda: nn.LayerNorm((2, 4), eps=0.1), (3, 2, 4), id="layer, two axes"),
        pytest.param(lambda: nn.LayerNorm(4, bias=False), (3, 4), id="layer, no shift"),
        pytest.param(lambda: nn.LayerNorm(4, elementwise_affine=False), (3, 4), id="layer, not affine"),
        pytest.param(lambda: nn.RMSNorm(4), (3, 4), id="root mean square"),
        pytest.param(lambda: nn.RMSNorm((2, 4), eps=0.1, elementwise_affine=False), (3, 2, 4), id="rms, not affine"),
    ],
)
def test_normalisation_without_running_statistics(layer: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    right(scrambled(layer()), rand(*shape))


def test_a_network_with_batch_norm_in_single_precision() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1))
    net[0].requires_grad_(False)
    d = cr.derive(lambda x: net(x).sum(), torch.randn(4, 2, 4, 4))
    assert "batch_norm" not in d.fallbacks
    assert net[1].num_batches_tracked == 1
