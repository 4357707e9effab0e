"""Compiled steps of the whole menagerie: gradients, and losses along a run, beside autograd's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only
from zoo import ENTRIES, SEED, Entry

import chainrule as cr

# Selecting by a mask gives as many values as the mask has trues.
SHAPED_BY_VALUES = {"index_with_a_mask", "all_but_the_diagonal"}
PLANNED = [e for e in ENTRIES if e.name not in SHAPED_BY_VALUES]


def scalar(entry: Entry) -> Callable[..., Tensor]:
    """The entry with a weighted sum behind it, so that its output is a loss."""

    def forward(*args: Any) -> Tensor:
        output = entry.function(*args)
        weights = torch.linspace(-1.0, 1.0, max(output.numel(), 1), dtype=output.dtype)[: output.numel()]
        return (output * weights.reshape(output.shape)).sum() if output.ndim else output * 1.5

    return forward


def moved(args: Any, factor: float) -> Any:
    """The arguments with other numbers, from the same ranges."""
    return tree_map_only(Tensor, lambda t: (t * factor).detach() if t.is_floating_point() else t.clone(), args)


@pytest.mark.parametrize("entry", PLANNED, ids=lambda e: e.name)
def test_gradients_of_the_menagerie(entry: Entry) -> None:
    """Over several batches: nothing of one is left in the next."""
    forward, example = scalar(entry), entry.arguments(5)
    torch.manual_seed(SEED)
    step = cr.compile(forward, *example)
    lowered = step.plan().lowered
    names = {id(tensor): lowered.names[p] for p, tensor in lowered.params.items()}
    first = [t for t in tree_flatten(example)[0] if isinstance(t, Tensor)]
    for factor in (1.0, 0.97, 0.9):
        args = moved(example, factor)
        torch.manual_seed(SEED)
        loss, found = step(*args)
        leaves = [t for t in tree_flatten(args)[0] if isinstance(t, Tensor)]
        asked = {names[id(t)]: leaf.requires_grad_() for t, leaf in zip(first, leaves) if id(t) in names}
        asked |= {names[id(t)]: t for t in lowered.params.values() if t.requires_grad}
        torch.manual_seed(SEED)
        truth = forward(*args)
        torch.testing.assert_close(loss, truth.detach(), rtol=1e-9, atol=1e-11)
        gradients = torch.autograd.grad(truth, list(asked.values()), allow_unused=True)
        for name, gradient in zip(asked, gradients):
            expected = torch.zeros_like(found[name]) if gradient is None else gradient
            torch.testing.assert_close(found[name], expected, rtol=1e-7, atol=1e-9)
    assert found


@pytest.mark.parametrize("name", sorted(SHAPED_BY_VALUES))
def test_shapes_that_values_decide(name: str) -> None:
    entry = next(e for e in ENTRIES if e.name == name)
    with pytest.raises(cr.ChainruleError, match=r"depends on the numbers of the batch, so that no step can be planned"):
        cr.compile(scalar(entry), *entry.arguments(5))


# -- numbers that are read out of tensors ------------------------------------------------------------


def test_a_path_that_the_batch_decides() -> None:
    w = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def forward(x: Tensor) -> Tensor:
        h = x @ w
        if h.sum() > 0:
            h = h * 2
        while h.norm() > 1:
            h = h / 2
        return (h**2).mean()

    x = torch.randn(4, 3, dtype=torch.float64)
    x = x if (x @ w).sum() > 0 else -x
    for optimizer, engine in ((None, "torch"), (cr.SGD(lr=0.0), "torch"), (cr.SGD(lr=0.0), "c")):
        if engine == "c":
            with pytest.warns(RuntimeWarning, match='only the engine "torch" looks at that'):
                step = cr.compile(forward, x, optimizer=optimizer, engine=engine)
        else:
            step = cr.compile(forward, x, optimizer=optimizer, engine=engine)
        result = step(x * 1.0001)
        torch.testing.assert_close(result if optimizer else result[0], forward(x * 1.0001).detach())
        for other in (-x, x * 16, x * 1e-3):
            with pytest.raises(
                cr.ChainruleError, match=r"take another path .* than those of the example \(.*test_compile"
            ):
                step(other)


def test_numbers_of_a_batch_in_its_loss() -> None:
    w = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def forward(x: Tensor) -> Tensor:
        return ((x @ w) ** 2).mean() * (x @ w).sum().item() / x.abs().max().item()

    step = cr.compile(forward, torch.randn(4, 3, dtype=torch.float64))
    for _ in range(3):
        x = torch.randn(4, 3, dtype=torch.float64)
        loss, found = step(x)
        truth = forward(x)
        torch.testing.assert_close(loss, truth.detach())
        torch.testing.assert_close(found["w"], torch.autograd.grad(truth, w)[0])


def test_a_number_that_python_keeps() -> None:
    w = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def forward(x: Tensor) -> Tensor:
        return ((x @ w) ** int(x.max())).mean()

    x = torch.randn(4, 3, dtype=torch.float64)
    x[0, 0] = 3.6
    step = cr.compile(forward, x)
    torch.testing.assert_close(step(x)[0], forward(x).detach())
    x[0, 0] = 3.2
    torch.testing.assert_close(step(x)[0], forward(x).detach())
    x[0, 0] = 4.2
    with pytest.raises(cr.ChainruleError, match="take another path"):
        step(x)


# -- what is like something else, and is not ------------------------------------------------------------


def test_calls_that_differ_in_little_are_not_merged() -> None:
    w, v = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    whole = torch.arange(12).view(3, 4)

    def forward(x: Tensor, n: Tensor) -> Tensor:
        gelus = torch.nn.functional.gelu(x * w) - torch.nn.functional.gelu(x * w, approximate="tanh") * 3
        sums = torch.add(w, v, alpha=2) * torch.add(w, v, alpha=3) * torch.add(w, v)
        means = w * (n * 2 // 3) + v * (n * 2.0).mean() + (n * True).sum()
        axes = x.sum(0).mean() * w.sum() * x.softmax(0).std(0).sum() * x.softmax(1).std(0).sum()
        return gelus.sum() + sums.mean() + means.sum() + axes

    x = torch.randn(3, 4, dtype=torch.float64)
    loss, found = cr.compile(forward, x, whole)(x, whole)
    truth = forward(x, whole)
    torch.testing.assert_close(loss, truth.detach())
    for name, gradient in zip("wv", torch.autograd.grad(truth, [w, v])):
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize("name", ["layer norm", "roll"])
def test_kernels_whose_results_lie_otherwise_than_they_are_traced(name: str) -> None:
    v = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(6, 4, 4, dtype=torch.float64)
    halves = torch.arange(2.0, dtype=torch.float64)

    def forward(x: Tensor) -> Tensor:
        h = (x @ v).transpose(1, 2)
        if name == "roll":
            channels_last = h.unflatten(2, (2, 2)).cos()
            return (channels_last.roll(1, 1).flatten(1) * torch.arange(16.0, dtype=x.dtype)).cos().sum()
        return (torch.nn.functional.layer_norm(h, (4,)).transpose(1, 2).reshape(-1, 2) * halves).cos().sum()

    loss, found = cr.compile(forward, x, params=[v])(x)
    truth = forward(x)
    torch.testing.assert_close(loss, truth.detach())
    torch.testing.assert_close(found["v"], torch.autograd.grad(truth, [v])[0])


def test_batches_of_other_types() -> None:
    w = torch.randn(4, requires_grad=True)
    step = cr.compile(lambda x: (x * w).square().mean(), torch.randn(5, 4))
    for dtype in (torch.float32, torch.float64, torch.int64, torch.float32, torch.float16):
        x = (torch.randn(5, 4) * 3).to(dtype)
        torch.testing.assert_close(step(x)[0], (x * w).square().mean().detach())  # of the same type


def test_two_draws_are_two() -> None:
    w = torch.ones(2000, dtype=torch.float64, requires_grad=True)
    step = cr.compile(lambda: ((torch.rand(2000) - torch.rand(2000)) * w).square().mean())
    torch.manual_seed(0)
    found = step()[0]
    assert found > 0.1  # the mean of (u - v)^2 is 1/6; that of one draw less itself is nothing
    torch.manual_seed(0)
    expected = (torch.rand(2000) - torch.rand(2000)).double().square().mean()
    torch.testing.assert_close(found, expected)
