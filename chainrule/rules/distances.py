"""Distances between vectors: where two points coincide, the gradient is 0."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import opening, rule


def _slopes(difference, distance, p):
    """The slope of a p-norm: d|d|_p / dd = sign(d) |d|^(p-1) / |d|_p^(p-1)."""
    if p == 0:
        return torch.zeros_like(difference)
    if p == 1:
        return difference.sign()
    if p == float("inf"):
        return difference.sign() * (difference.abs() == distance)
    if p == 2:
        return (difference / distance).masked_fill(distance == 0, 0)
    slopes = difference.sign() * difference.abs() ** (p - 1) / distance ** (p - 1)
    return slopes.masked_fill((distance == 0) | (difference == 0), 0)


@rule(
    torch.cdist,
    samples=["r(3, 4), r(5, 4)", "r(2, 3, 4), r(5, 4)", "r(3, 4), r(5, 4), 1.0", "r(3, 4), r(5, 4), p=3.0",
             "r(3, 4), r(5, 4), float('inf')", "r(3, 4), r(5, 4), 0.5", "r(3, 4), r(5, 4), 0.0"],
    note="where two points coincide the gradient is 0; in the largest norm, all largest differences get it",
)  # fmt: skip
def cdist(out, x1, x2, p=2.0, compute_mode=None):
    if p == 2:
        g = (out.g / out).masked_fill(out == 0, 0)
        x1.g = g.sum(-1, keepdim=True) * x1 - g @ x2
        x2.g = g.mT.sum(-1, keepdim=True) * x2 - g.mT @ x1
    else:
        difference = x1.unsqueeze(-2) - x2.unsqueeze(-3)
        g = out.g.unsqueeze(-1) * _slopes(difference, out.unsqueeze(-1), p)
        x1.g = g.sum(-2)
        x2.g = -g.sum(-3)


@opening(F.pdist)
def pdist(input, p=2.0):
    i, j = torch.triu_indices(input.shape[0], input.shape[0], 1)
    return torch.cdist(input, input, p, compute_mode="donot_use_mm_for_euclid_dist")[i, j]


@opening(F.pairwise_distance)
def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    return torch.linalg.vector_norm(x1 - x2 + eps, p, -1, keepdim)
