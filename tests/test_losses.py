"""Losses where their rules do not go without saying: ignored targets, old arguments, edges, conventions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_close, run_emitted
from torch import Tensor, nn

import chainrule as cr


def rand(*shape: int) -> Tensor:
    return torch.randn(size=shape, dtype=torch.float64)


def right(f: Callable[..., Tensor], *args: Tensor, tolerance: float = 1e-10) -> cr.Derivation:
    """Derived, in emitted code and by autograd: one gradient, and nothing taken from autograd."""
    leaves = [a.clone().requires_grad_() for a in args]
    truth = torch.autograd.grad(f(*leaves), leaves)
    d = cr.derive(f, *leaves)
    assert d.fallbacks == []
    _, emitted = run_emitted(d, *(d[name].value.clone() for name in d.inputs))
    for ours, alone, theirs in zip(d.grads.values(), emitted.values(), truth, strict=True):
        assert_close(ours, theirs, tolerance)
        assert_close(alone, theirs, tolerance)
    return d


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


IGNORED = torch.full((5,), -100)


@pytest.mark.parametrize("how", [{}, {"label_smoothing": 0.1}, {"weight": torch.ones(3).double()}])
def test_every_target_is_ignored(quiet: None, how: dict[str, float]) -> None:
    d = right(lambda x: F.cross_entropy(x, IGNORED, **how), rand(5, 3))
    assert d.output.isnan()
    assert not d.grads["x"].any()  # type: ignore[union-attr]


def test_every_target_of_nll_is_ignored(quiet: None) -> None:
    d = right(lambda x: F.nll_loss(x, IGNORED), rand(5, 3))
    assert not d.grads["x"].any()  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.poisson_nll_loss, F.soft_margin_loss])
@pytest.mark.parametrize("how", [{"size_average": False}, {"size_average": True}, {"reduce": True}])
def test_the_older_arguments_name_the_reduction(quiet: None, loss: Callable[..., Tensor], how: dict[str, bool]) -> None:
    target = torch.where(rand(3, 4) > 0, 1.0, -1.0).double()
    right(lambda x: loss(x, target, **how), rand(3, 4))


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.kl_div])
@pytest.mark.parametrize("shapes", [((3, 1), (1, 4)), ((4,), (3, 4)), ((3, 4), (1, 4))])
def test_broadcast_terms(quiet: None, loss: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...]) -> None:
    right(lambda x, y: loss(x, y.abs() + 0.1), rand(*shapes[0]), rand(*shapes[1]))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", [F.mse_loss, F.huber_loss])
def test_weights_of_terms(loss: Callable[..., Tensor], reduction: str) -> None:
    right(lambda x, y, w: loss(x, y, reduction=reduction, weight=w), rand(3, 4), rand(3, 4), rand(3, 4).abs())


def test_probabilities_of_zero_and_one(quiet: None) -> None:
    x, y = torch.tensor([0.0, 1.0, 0.5]).double(), rand(3).sigmoid()
    right(F.binary_cross_entropy, x, y, tolerance=1e-7)  # torch's bound is 1e-12 in single precision


def test_targets_of_zero_in_the_divergence(quiet: None) -> None:
    right(lambda x, y: F.kl_div(x, y, reduction="sum"), rand(3), torch.tensor([0.0, 0.4, 0.6]).double())


@pytest.mark.parametrize("p", [1, 2])
def test_scores_at_the_margin(p: int) -> None:
    x = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.5, 0.5]]).double()
    right(lambda x: F.multi_margin_loss(x, torch.tensor([0, 2]), p=p), x)
    right(lambda x: F.multilabel_margin_loss(x, torch.tensor([[0, 2, -1], [1, -1, 0]])), x)
    right(lambda x: F.hinge_embedding_loss(x, torch.tensor([[1, -1, -1], [-1, 1, -1]])), x)
    right(lambda x: F.margin_ranking_loss(x[0], x[1], torch.tensor([1.0, -1.0, 1.0]), 0.5), x)


def test_lengths_below_eps_and_of_zero() -> None:
    x, y = rand(3, 4), rand(3, 4)
    x[1] = 0
    right(lambda x, y: F.cosine_similarity(x, y).sum(), x, y)
    right(lambda x, y: F.cosine_similarity(x, y, eps=2.0).sum(), x, y)
    right(lambda x, y: F.cosine_embedding_loss(x, y, torch.tensor([1, -1, 1]), 0.1), x, y)
    right(lambda x, y: F.pairwise_distance(x, y, eps=0).sum(), x, y)


def test_variances_below_eps() -> None:
    var = torch.tensor([[1e-9], [0.5], [2.0]]).double()
    right(lambda x, y, v: F.gaussian_nll_loss(x, y, v, full=True), rand(3, 4), rand(3, 4), var)


@pytest.mark.parametrize("zero_infinity", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_sequences(reduction: str, zero_infinity: bool) -> None:
    targets, lengths, sizes = torch.tensor([[1, 2, 2], [3, 1, 0]]), torch.tensor([6, 5]), torch.tensor([3, 2])

    def loss(x: Tensor) -> Tensor:
        return F.ctc_loss(x.log_softmax(2), targets, lengths, sizes, 0, reduction, zero_infinity).sum()

    assert right(loss, rand(6, 2, 4)).verify()


def test_a_sequence_without_a_batch() -> None:
    right(lambda x: F.ctc_loss(x.log_softmax(1), torch.tensor([1, 2]), (6,), (2,)), rand(6, 4))


def test_triplets_of_modules() -> None:
    apart = nn.PairwiseDistance(p=1)
    far = nn.TripletMarginWithDistanceLoss(distance_function=apart, swap=True)
    right(lambda a, p, n: far(a, p, n) + nn.TripletMarginLoss(swap=True, p=3)(a, p, n), *(rand(5, 4) for _ in "apn"))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_spellings_with_a_numbered_reduction(quiet: None, number: int) -> None:
    x, y, signs = rand(3, 4), rand(3, 4).sigmoid(), torch.where(rand(3, 4) > 0, 1.0, -1.0).double()
    inner = torch._C._nn
    for f in (inner.mse_loss, inner.l1_loss, inner.huber_loss, inner.smooth_l1_loss, torch.kl_div):
        right(lambda x, y, f=f: f(x, y, number).sum(), x, y)
    right(lambda x: inner.soft_margin_loss(x, signs, number).sum(), x)
    right(lambda x: torch.margin_ranking_loss(x, y, signs, 0.1, number).sum(), x)
    right(lambda x: torch.hinge_embedding_loss(x, signs, 0.1, reduction=number).sum(), x)
    right(lambda x, y: torch.poisson_nll_loss(x, y, True, False, 1e-8, number).sum(), x, y)
    right(lambda x, y: torch.binary_cross_entropy_with_logits(x, y, reduction=number).sum(), x, y)
    right(lambda x: inner.cross_entropy_loss(x, torch.tensor([1, 3, 0]), None, number).sum(), x)
    right(lambda x: torch.ops.aten.mse_loss(x, y, number).sum(), x)
