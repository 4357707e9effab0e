"""Reductions: means, variances, norms, products, scans."""

import torch
from torch import Tensor

from zoo.registry import normal, positive, truths, zoo


@zoo(lambda n: (normal(n, 4),), batches=(3,))
def standardise(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)


@zoo(lambda n: (normal(n, 4),))
def variances(x: Tensor) -> Tensor:
    return x.var(1).sum() + torch.var(x, dim=-1, unbiased=False).sqrt().sum()


@zoo(lambda n: (normal(n, 4),))
def deviation_of_all(x: Tensor) -> Tensor:
    return x.std() * x.var(correction=0)


@zoo(lambda n: (normal(n, 4), normal(4)))
def log_sum_exp(x: Tensor, shift: Tensor) -> Tensor:
    return torch.logsumexp(x + shift, dim=1).mean()


@zoo(lambda n: (normal(n, 4),))
def log_sum_exp_by_hand(x: Tensor) -> Tensor:
    m = x.max(1, keepdim=True)[0]
    return (m + (x - m).exp().sum(1, keepdim=True).log()).squeeze(1)


@zoo(lambda n: (normal(n, 4),))
def softmax_sums_to_one(x: Tensor) -> Tensor:
    return x.softmax(1).sum()


@zoo(lambda n: (normal(n, 4), normal(4)))
def norms(x: Tensor, w: Tensor) -> Tensor:
    return x.norm() + x.norm(dim=1).sum() * w.norm(p=2) + x.abs().sum(1).max()


@zoo(lambda n: (normal(n, 4),))
def unit_rows(x: Tensor) -> Tensor:
    return x / torch.linalg.norm(x, dim=1, keepdim=True)


@zoo(lambda n: (torch.cat([normal(n, 3), torch.zeros(n, 1).double()], 1),))
def product_with_a_zero(x: Tensor) -> Tensor:
    return x.prod(1).sum() + (x + 1).prod(dim=1).mean()


@zoo(lambda n: (normal(n, 4) * truths(n, 4),))
def product_of_everything(x: Tensor) -> Tensor:
    return (x + 0.5).prod() + x.prod()


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def cumulative_sums(x: Tensor, mix: Tensor) -> Tensor:
    return (x.cumsum(1) * mix).sum() + torch.cumsum(x * mix, dim=0).pow(2).mean()


@zoo(lambda n: (positive(n, 4),))
def cumulative_product(x: Tensor) -> Tensor:
    return x.cumprod(-1).sum(0).log().sum()


@zoo(lambda n: (normal(n, 4),))
def extremes(x: Tensor) -> Tensor:
    low, _ = x.min(dim=1)
    high = torch.max(x, dim=1).values
    return (high - low).sum() * x.max() + x.amin(0).sum()


@zoo(lambda n: (torch.ones(n, 3).double(),), smooth=False)
def ties_of_amax(x: Tensor) -> Tensor:
    return x.amax(1).sum() + x.max() ** 2


@zoo(lambda n: (normal(n, 4), normal(n, 4)))
def sum_over_every_axis_in_turn(a: Tensor, b: Tensor) -> Tensor:
    p = a * b
    return p.sum(0).pow(2).sum() + p.sum(1).pow(3).sum() + p.sum((0, 1)) * p.sum()


@zoo(lambda n: (normal(n, 2, 3, 2),))
def mean_over_several_axes(image: Tensor) -> Tensor:
    pooled = image.mean(dim=(2, 3))
    centred = image - image.mean((0, 2, 3), keepdim=True)
    return pooled.pow(2).sum() + (centred**3).mean()


@zoo(lambda n: (normal(n, 3),), batches=(3,))
def covariance(x: Tensor) -> Tensor:
    x = x - x.mean(0, keepdim=True)
    cov = x.T @ x / (x.shape[0] - 1)
    return (cov**2).sum() - cov.diagonal().sum()


@zoo(lambda n: (normal(n, 3),))
def trace_of_gram(x: Tensor) -> Tensor:
    gram = x @ x.T
    return gram.diagonal().sum() + gram.triu(1).pow(2).sum()


@zoo(lambda n: (normal(n, 4),))
def soft_ranking(x: Tensor) -> Tensor:
    diffs = x[:, :, None] - x[:, None, :]
    ranks = torch.sigmoid(3 * diffs).sum(-1)
    return (ranks * torch.arange(x.size(1))).mean()


@zoo(lambda n: (normal(0, 4) if n == 5 else normal(n, 4), normal(4)))
def empty_batch_sum(x: Tensor, w: Tensor) -> Tensor:
    return ((x * w).tanh() @ w).sum()


@zoo(lambda n: (normal(n - 5, 4) if n >= 5 else normal(n, 4), normal(4, 3), normal(3)))
def empty_batch_linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return (x @ w + b).relu().pow(2).sum()


@zoo(lambda n: (normal(n, 6),))
def gradient_that_cancels(x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    normal = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    return normal.sum() + x.softmax(1).mean()


@zoo(lambda n: (normal(n),))
def divided_by_a_scalar(x: Tensor) -> Tensor:
    return (x / x.sum().exp()).sum() + (x / x.abs().max()).mean()
