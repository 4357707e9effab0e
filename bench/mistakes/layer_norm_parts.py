"""Layer norm by parts, followed by a fixed read-out: mean, difference, variance, and back through each."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(10)
    return torch.randn(6, 5) * 2 + 1, torch.randn(5), torch.randn(5), torch.randn(6, 5)


def step(x, gamma, beta, r):
    n = x.shape[1]
    mean = x.mean(1, keepdim=True)
    diff = x - mean
    diff2 = diff**2
    var = diff2.sum(1, keepdim=True) / n
    inv = (var + 1e-5) ** -0.5
    xhat = diff * inv
    out = gamma * xhat + beta
    loss = (out * r).tanh().sum()

    out.g = (1 - (out * r).tanh() ** 2) * r
    # ~ missing-factor: out.g = 1 - (out * r).tanh() ** 2
    # ~ wrong-exponent: out.g = (1 - (out * r).tanh()) * r
    gamma.g = (xhat * out.g).sum(0)
    # ~ wrong-tensor: gamma.g = (x * out.g).sum(0)
    # ~ wrong-axis|wrong-shape: gamma.g = (xhat * out.g).sum(1)
    # ~ missing-factor: gamma.g = out.g.sum(0)
    # ~ missing-broadcast-sum|wrong-shape: gamma.g = xhat * out.g
    # = gamma.g = torch.einsum("ij,ij->j", out.g, xhat)
    beta.g = out.g.sum(0)
    # ~ wrong-scale: beta.g = out.g.mean(0)
    # ~ missing-gradient:
    xhat.g = gamma * out.g
    # ~ missing-factor: xhat.g = out.g * 1
    # ~ wrong-tensor: xhat.g = beta * out.g
    inv.g = (diff * xhat.g).sum(1, keepdim=True)
    # ~ missing-factor: inv.g = xhat.g.sum(1, keepdim=True)
    # ~ wrong-tensor: inv.g = (x * xhat.g).sum(1, keepdim=True)
    var.g = -0.5 * (var + 1e-5) ** -1.5 * inv.g
    # ~ sign: var.g = 0.5 * (var + 1e-5) ** -1.5 * inv.g
    # ~ wrong-exponent: var.g = -0.5 * (var + 1e-5) ** -0.5 * inv.g
    # ~ wrong-scale: var.g = -((var + 1e-5) ** -1.5) * inv.g
    # = var.g = -0.5 * inv**3 * inv.g
    diff2.g = var.g / n * torch.ones_like(diff2)
    # ~ wrong-scale: diff2.g = var.g / (n - 1) * torch.ones_like(diff2)
    # ~ wrong-scale: diff2.g = var.g * torch.ones_like(diff2)
    # ~ wrong-scale: diff2.g = var.g / len(x) * torch.ones_like(diff2)
    # = diff2.g = (var.g / n).expand_as(diff2)
    diff.g = inv * xhat.g + 2 * diff * diff2.g
    # ~ lost-path|missing-term: diff.g = inv * xhat.g
    # ~ lost-path|missing-term: diff.g = 2 * diff * diff2.g
    # ~ wrong-term-scale: diff.g = inv * xhat.g + diff * diff2.g
    # ~ wrong-term-scale: diff.g = inv * xhat.g - 2 * diff * diff2.g
    # ~ double-counted-path|wrong-term-scale: diff.g = inv * xhat.g + inv * xhat.g + 2 * diff * diff2.g
    mean.g = -diff.g.sum(1, keepdim=True)
    # ~ sign: mean.g = diff.g.sum(1, keepdim=True)
    x.g = diff.g + mean.g / n
    # ~ lost-path|missing-term: x.g = diff.g.clone()
    # ~ wrong-term-scale: x.g = diff.g + mean.g
    # ~ wrong-term-scale: x.g = diff.g - mean.g / n
    # = x.g = diff.g - diff.g.mean(1, keepdim=True)
    return loss
