"""Values that change where nobody looks, and sizes that rules and folded code must not take for granted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_close, run_emitted
from torch import Tensor, nn

import chainrule as cr

SHARED = torch.zeros(3, 4, dtype=torch.float64)
ROW = SHARED[0]


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def through_numpy(x: Tensor) -> Tensor:
    y = x * 2
    y.detach().numpy()[0] = 5
    return (y**2).sum()


def through_memory_of_another(x: Tensor) -> Tensor:
    ROW.copy_(x[0])
    return (SHARED**2).sum()


@pytest.mark.parametrize("forward", [through_numpy, through_memory_of_another])
def test_a_write_out_of_sight_is_refused(forward: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(cr.ChainruleError, match=r"out of sight|shares its memory"):
        cr.derive(forward, rand(3, 4))


def test_a_write_out_of_sight_is_refused_before_code_is_shown() -> None:
    d = cr.derive(through_numpy, rand(3, 4).requires_grad_())
    with pytest.raises(cr.ChainruleError, match="out of sight"):
        d.source("function")


def test_a_write_through_data_leaves_the_gradient() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x * 2
        y.data.mul_(3)
        return (y**3).sum()

    x = rand(3, 4)
    leaf = x.clone().requires_grad_()
    output = forward(leaf)
    truth = torch.autograd.grad(output, leaf)[0]
    for given in (x.clone(), x.clone().requires_grad_()):
        d = cr.derive(forward, given)
        assert_close(d.grads["x"], truth)
        emitted, gradients = run_emitted(d, x.clone())
        assert_close(emitted, output)
        assert_close(gradients["x"], truth)


def test_an_input_written_before_may_be_written() -> None:
    def forward(x: Tensor) -> Tensor:
        x.mul_(2)
        return (x**2).sum()

    x = rand(3)
    x.add_(1).add_(1)
    before = x.clone()
    assert_close(cr.derive(forward, x).grads["x"], 8 * before)


SHAPES: list[tuple[Callable[[Tensor], Tensor], tuple[int, ...], tuple[int, ...]]] = [
    (lambda x: F.cross_entropy(x, torch.arange(len(x)) % 3, label_smoothing=0.1), (4, 3), (5, 6)),
    (lambda x: F.cross_entropy(x, x.detach().softmax(1), label_smoothing=0.1), (4, 3), (5, 6)),
    (lambda w: F.embedding(torch.tensor([0, 2, 3]), w, padding_idx=-1).square().sum(), (4, 3), (6, 3)),
    (lambda x: torch.cross(x, x.roll(1, 1) ** 2).sin().sum(), (4, 3), (3, 3)),
    *(
        (lambda x: torch.linalg.svd(x, full_matrices=False)[0].pow(3).sum(), one, other)
        for one in ((3, 3), (3, 4), (4, 3))
        for other in ((3, 3), (3, 4), (4, 3))
    ),
    (lambda x: x.sum() if x.shape[0] > 2 and x.shape[1] > 2 else x.prod(), (3, 3), (3, 2)),
]


@pytest.mark.filterwarnings("ignore:Using torch.cross")
@pytest.mark.parametrize("case", range(len(SHAPES)))
def test_rules_hold_for_other_sizes_or_say_that_they_do_not(case: int) -> None:
    forward, one, other = SHAPES[case]
    d = cr.derive(forward, rand(*one))
    x = rand(*other).requires_grad_()
    output = forward(x)
    try:
        emitted, gradients = run_emitted(d, x.detach().clone())
    except AssertionError:
        return
    assert_close(emitted, output)
    assert_close(next(iter(gradients.values())), torch.autograd.grad(output, x)[0], 1e-8)


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        m = self.kv(memory)
        return x + (self.q(x) @ m.mT).softmax(-1) @ m


class Backwards(nn.Module):
    """Layers taken in reverse, the first of them apart from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Cross() for _ in range(6)])

    def forward(self, x: Tensor) -> Tensor:
        memory = x * 2
        below = memory.sigmoid()
        for layer in reversed(list(self.layers)):
            below = layer(below, memory)
        return below.square().mean()


def test_folded_code_reads_nothing_before_it_is_made() -> None:
    torch.manual_seed(0)
    model = Backwards().double()
    x = rand(2, 5, 4)
    d = cr.derive(model, x)
    assert "_backward(" in d.source("function")
    truth = torch.autograd.grad(model(x), list(model.parameters()))
    _, gradients = d.function()
    for (name, _), right in zip(model.named_parameters(), truth, strict=True):
        assert_close(gradients[name], right)
