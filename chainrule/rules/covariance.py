"""Covariance and correlation between rows, opened into means and a product."""

import torch

from chainrule.rules.book import opening


@opening(torch.cov, torch.Tensor.cov)
def cov(input, *, correction=1, fweights=None, aweights=None):
    x = input.reshape(1, -1) if input.ndim < 2 else input
    weights = [w for w in (fweights, aweights) if w is not None]
    if not weights:
        centred = x - x.mean(1, keepdim=True)
        return (centred @ centred.T / max(x.shape[1] - correction, 0)).squeeze()
    w = weights[0] if len(weights) == 1 else fweights * aweights
    total = w.sum()
    centred = x - (x * w).sum(1, keepdim=True) / total
    freedom = total
    if correction:
        freedom = total - (correction if aweights is None else correction * (w * aweights).sum() / total)
    return (centred @ (centred * w).T / freedom).squeeze()


@opening(torch.corrcoef, torch.Tensor.corrcoef)
def corrcoef(input):
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviation = c.diagonal().sqrt()
    return (c / deviation.unsqueeze(1) / deviation).clamp(-1, 1)
