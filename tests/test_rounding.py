"""The estimated rounding errors against those of float32, bfloat16 and float16 runs of the same program.

The promise: at least 99.9 % of elements err by less than the estimate in float32, bfloat16 and float16, and by
less than 10 times the estimate with hardly an exception; and the estimate is at most 100 times the rms error.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from programs import FAMILIES, random_program
from torch import Tensor, fx

import chainrule as cr
from chainrule.diagnosis.truth.rounding import rounding
from chainrule.rules import BOOK
from chainrule.run import double, needed, run

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return ((x @ w1 + b1).relu() @ w2 + b2).pow(2).mean()


def layer_norm(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * g + b).tanh()


def batch_norm(x: Tensor, w: Tensor, b: Tensor, g: Tensor) -> Tensor:
    h = x @ w + b
    return ((h - h.mean(0)) * (h.var(0, unbiased=False) + 1e-5).rsqrt() * g).tanh()


def softmax(x: Tensor, y: Tensor) -> Tensor:
    e = (x - x.max(-1, keepdim=True).values).exp()
    return -((e / e.sum(-1, keepdim=True)).log() * y).sum()


def products(x: Tensor, y: Tensor) -> Tensor:
    for _ in range(30):
        x = x * (1 + 0.1 * y) * 0.97
    return x


def long_sum(x: Tensor) -> Tensor:
    return (x.abs() / 4).sum().sqrt()


def long_cancelling_sum(x: Tensor, w: Tensor) -> Tensor:
    return (x * w).sum()


def long_product(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


def cancelling(x: Tensor, w: Tensor) -> Tensor:
    return (x * w).sum(0) - (w * x).flip(0).sum(0) + (x - x.mean(0)).sum(0)


def attention(x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((x @ q) @ (x @ k).mT / 4.0).softmax(-1) @ (x @ v)


def whole(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.gelu(F.layer_norm(x, (24,), w, b))


def conv(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.conv2d(x, w, b, padding=1).relu().mean((2, 3))


def embedding(table: Tensor, w: Tensor) -> Tensor:
    return (table[torch.arange(300) % 7] @ w).pow(2).mean()


def recurrent(x: Tensor, w: Tensor, u: Tensor) -> Tensor:
    h = torch.zeros(4, 8, dtype=x.dtype)
    for t in range(10):
        h = torch.tanh(x[t] @ w + h @ u)
    return h


def programs(seed: int) -> Iterator[tuple[Callable[..., Tensor], list[Tensor]]]:
    generator = torch.Generator().manual_seed(seed)

    def r(*shape: int, by: float = 1.0) -> Tensor:
        return by * torch.randn(shape, generator=generator, dtype=torch.float64)

    yield mlp, [r(33, 17), r(17, 29, by=0.25), r(29), r(29, 5, by=0.2), r(5)]
    yield layer_norm, [r(21, 40) + 1, r(40), r(40)]
    yield batch_norm, [r(200, 9), r(9, 11), r(11), r(11)]
    yield softmax, [r(31, 13, by=3), r(31, 13).softmax(-1)]
    yield products, [r(50, 7), r(50, 7)]
    yield long_sum, [r(100_000)]
    yield long_cancelling_sum, [r(100_000), r(100_000)]
    yield long_product, [r(3, 100_000), r(100_000)]
    yield cancelling, [r(1000, 6) + 3, r(1000, 6)]
    yield attention, [r(3, 12, 16), r(16, 16, by=0.25), r(16, 16, by=0.25), r(16, 16, by=0.25)]
    yield whole, [r(30, 24), r(24), r(24)]
    yield conv, [r(4, 3, 9, 9), r(5, 3, 3, 3), r(5)]
    yield embedding, [r(7, 5), r(5, 4)]
    yield recurrent, [r(10, 4, 6), r(6, 8, by=0.3), r(8, 8, by=0.3)]


class Case:
    """A program with its gradients: its exact values, those in `dtype`, and the estimate."""

    def __init__(self, function: Any, arguments: list[Tensor], dtype: torch.dtype) -> None:
        arguments = [a.to(dtype).double() if a.is_floating_point() else a for a in arguments]
        shape = function(*arguments).shape
        generator = torch.Generator().manual_seed(0)
        upstream = torch.randn(shape, generator=generator).to(dtype).double() if shape.numel() > 1 else None
        base = cr.derive(function, *arguments, upstream=upstream)._base
        grads = [base.gradients[n] for n in base.wanted if n in base.gradients]
        self.roots = list(dict.fromkeys([base.output, *grads]))
        self.nodes = needed(self.roots)
        self.known = {n: double(n.meta["val"]) for n in base.inputs}
        self.eps = torch.finfo(dtype).eps

        def low(value: Any) -> Any:
            if isinstance(value, Tensor) and value.is_floating_point():
                return value.to(dtype)
            return dtype if isinstance(value, torch.dtype) and value.is_floating_point else value

        with torch.no_grad():
            self.exact = run(self.nodes, self.known, double)
            self.got = run(self.nodes, {n: low(v) for n, v in self.known.items()}, low)

    def estimate(self, **options: Any) -> dict[fx.Node, Tensor]:
        return rounding(self.nodes, self.known, self.roots, self.eps, **options)

    def errors(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each root, the errors made and those estimated, where `dtype` can hold the numbers."""
        for k, (root, estimate) in enumerate(self.estimate().items()):
            actual = (self.got[root].double() - self.exact[root]).abs()
            assert estimate.shape == actual.shape and estimate.dtype == torch.float64
            yield k, actual[actual.isfinite()], estimate[actual.isfinite()]

    def flipped(self) -> bool:
        """Whether rounding turned a comparison or an index around."""
        kept = [n for n in self.nodes if isinstance(v := self.exact[n], Tensor) and not v.is_floating_point()]
        return not all(torch.equal(self.exact[n], self.got[n]) for n in kept)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_covers_the_errors_made_and_is_not_absurd(dtype: torch.dtype) -> None:
    count, beyond, far_beyond = 0, 0, 0
    squares: dict[tuple[Any, int], list[float]] = {}
    for seed in range(2):
        for function, arguments in programs(seed):
            case = Case(function, arguments, dtype)
            for k, actual, estimate in case.errors() if not case.flipped() else ():
                count += actual.numel()
                beyond += int((actual > estimate).sum())
                far_beyond += int((actual > 10 * estimate).sum())
                sums = squares.setdefault((function, k), [0.0, 0.0])
                sums[0] += float(actual.pow(2).sum())
                sums[1] += float(estimate.pow(2).sum())
    assert count > 1_000_000
    assert beyond <= 1e-3 * count
    assert far_beyond <= 1e-5 * count
    for key, (made, estimated) in squares.items():
        assert not made or math.sqrt(estimated / made) < 100, key


@pytest.mark.parametrize("family", FAMILIES)
def test_covers_random_programs(family: str) -> None:
    count, beyond, far_beyond = 0, 0, 0
    for seed in range(12):
        picks = random.Random(f"{family}{seed}")
        program = random_program(picks.randrange, family)
        case = Case(program.function(), program.arguments, torch.float32)
        if not case.flipped():
            for _, actual, estimate in case.errors():
                count += actual.numel()
                beyond += int((actual > 3 * estimate).sum())
                far_beyond += int((actual > 10 * estimate).sum())
    assert count > 50
    assert beyond <= 5e-3 * count and not far_beyond


def test_covers_every_elementwise_operation() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [4 * torch.randn(2000, generator=generator), 0.01 + 3 * torch.rand(2000, generator=generator)]
    tried = 0
    for name, rule in BOOK.rules.items():
        if not rule.elementwise:
            continue
        for x in inputs:
            graph = fx.Graph()
            node = graph.call_function(rule.function, (graph.placeholder("x"),))
            node.meta["operation"] = name
            known = {node.args[0]: x.double()}
            try:
                got, exact = run([node], {node.args[0]: x})[node], run([node], known)[node]
            except (TypeError, RuntimeError):
                continue  # it takes more arguments
            if not isinstance(got, Tensor) or not got.is_floating_point():
                continue
            tried += 1
            actual = (got.double() - exact).abs()
            estimate = rounding([node.args[0], node], known, [node], torch.finfo(torch.float32).eps)[node]
            assert float((actual > 10 * estimate)[actual.isfinite()].double().mean()) <= 1e-3, name
    assert tried > 80


def test_sum_that_cancels_exactly_has_an_error() -> None:
    """The gradient of a bias before a batch norm is zero, and is computed as rounding leaves it."""
    case = Case(*next(p for p in programs(0) if p[0] is batch_norm), dtype=torch.float32)
    b = case.roots[3]
    assert float(case.exact[b].abs().max()) < 1e-12 < float(case.got[b].abs().max())
    assert bool((case.got[b].double().abs() < case.estimate()[b]).all())


def recorded(function: Any, *args: Tensor) -> tuple[list[fx.Node], dict[fx.Node, Any], fx.Node]:
    base = cr.derive(function, *args)._base
    return needed([base.output]), {n: double(n.meta["val"]) for n in base.inputs}, base.output


def test_exact_operations_err_nowhere() -> None:
    def exact(x: Tensor) -> Tensor:
        return (2 * torch.cat([-x.T.reshape(-1), x.relu().flip(0).flatten()]) / 4).max()

    nodes, known, output = recorded(exact, torch.randn(5, 3))
    assert float(rounding(nodes, known, [output], 1e-3)[output]) == 0.0
    assert float(rounding(nodes, known, [output], 1e-3, inputs=True)[output]) > 0.0


def test_no_branch_flips() -> None:
    def branching(x: Tensor, y: Tensor) -> Tensor:
        mask = (x * y) / y > x
        return (
            mask * 1000.0 + (x / y).round() + (x / y * y).argmax() + torch.where(mask, x, -x).sign()
        ).sum() + x.sum()

    x = torch.randn(200, dtype=torch.float64)
    nodes, known, output = recorded(branching, x, x * 2)
    size = float(run(nodes, known, double)[output].abs()) + 200 * 1200
    assert 0 < float(rounding(nodes, known, [output], 1e-6)[output]) < 1e-4 * size


def test_is_deterministic_and_leaves_the_generator_alone() -> None:
    case = Case(*next(programs(0)), dtype=torch.float32)
    state = torch.get_rng_state()
    first, again, other = case.estimate(), case.estimate(), case.estimate(seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not all(torch.equal(first[n], other[n]) for n in first)


def test_scales_with_eps() -> None:
    case = Case(*next(programs(0)), dtype=torch.float32)
    small = case.estimate()[case.roots[1]]
    case.eps /= 8
    torch.testing.assert_close(case.estimate()[case.roots[1]] * 8, small, rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (1, 5)])
def test_small_and_empty_shapes(shape: tuple[int, int]) -> None:
    nodes, known, output = recorded(lambda x: (x.exp() @ x.T).sum(), torch.randn(shape))
    (input_,) = (n for n in known if n in nodes)
    found = rounding(nodes, known, [output, input_], 1e-7)
    assert found[output].shape == () and found[input_].shape == shape
    assert bool(found[output].isfinite()) and not found[input_].any()


def test_elements_that_are_not_finite_and_complex_numbers() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    logarithm, fourier = graph.call_method("log", (x,)), graph.call_function(torch.fft.fft, (x,))
    logarithm.meta["operation"], fourier.meta["operation"] = "log", "fft_fft"
    known = {x: torch.tensor([1.0, -1.0, 0.0, 4.0], dtype=torch.float64)}
    found = rounding([x, logarithm, fourier], known, [logarithm, fourier], 1e-7)
    assert found[logarithm][1] == 0 == found[logarithm][2] and 0 < found[logarithm][3] < 1e-6
    assert found[fourier].dtype == torch.float64
    assert bool(((found[fourier] > 1e-8) & (found[fourier] < 1e-5)).all())


def test_what_is_far_off_is_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs with errors take most of the time of a check of a large program."""
    from chainrule.diagnosis.truth import case

    units: list[float] = []

    def counted(nodes: Any, known: Any, roots: Any, eps: float, **options: Any) -> Any:
        units.append(eps)
        return rounding(nodes, known, roots, eps, **options)

    monkeypatch.setattr(case, "rounding", counted)

    def step(x: Tensor, w: Tensor) -> Tensor:
        h = x @ w
        loss = h.square().mean()
        h.g = 2 * h / h.numel()
        w.g = 3 * (x.T @ h.g)
        return loss

    report = cr.check(step, torch.randn(6, 4), torch.randn(4, 3))
    assert [f.name for f in report.findings] == ["w"]
    assert torch.finfo(torch.float64).eps not in units
