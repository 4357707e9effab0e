"""Layer norm in the compact form: the gradient of the input in one line."""

import torch

CHECK = "train_step"
EPS = 1e-5


def inputs():
    torch.manual_seed(11)
    x = torch.randn(6, 5) * 1.5 - 0.5
    w = torch.randn(5, 3)
    gamma, beta = torch.rand(5) + 0.5, torch.randn(5)
    target = torch.randn(6, 3)
    return x, gamma, beta, w, target


def train_step(x, gamma, beta, w, target):
    N = x.shape[-1]
    mu = x.mean(-1, keepdim=True)
    var = x.var(-1, keepdim=True, unbiased=False)
    rstd = 1.0 / torch.sqrt(var + EPS)
    xhat = (x - mu) * rstd
    normed = gamma * xhat + beta
    out = normed @ w
    loss = 0.5 * ((out - target) ** 2).mean()

    out.g = (out - target) / out.numel()
    # ~ wrong-scale: out.g = 2 * (out - target) / out.numel()
    # ~ wrong-scale: out.g = (out - target) / out.shape[0]
    # ~ sign: out.g = (target - out) / out.numel()
    w.g = normed.T @ out.g
    # ~ wrong-tensor: w.g = xhat.T @ out.g
    # ~ wrong-tensor: w.g = x.T @ out.g
    normed.g = out.g @ w.T
    gamma.g = (normed.g * xhat).sum(0)
    # ~ wrong-tensor: gamma.g = (normed.g * normed).sum(0)
    beta.g = normed.g.sum(0)
    dy = normed.g * gamma
    # ~ missing-factor: dy = normed.g
    # ~ double-applied|wrong-factor|wrong-exponent: dy = normed.g * gamma * gamma
    # = dy = torch.einsum("ij,j->ij", normed.g, gamma)
    x.g = rstd / N * (N * dy - dy.sum(-1, keepdim=True) - xhat * (dy * xhat).sum(-1, keepdim=True))
    # ~ diagonal-jacobian|lost-path|missing-term: x.g = rstd * dy
    # ~ lost-path|missing-term: x.g = rstd / N * (N * dy - xhat * (dy * xhat).sum(-1, keepdim=True))
    # ~ lost-path|missing-term: x.g = rstd / N * (N * dy - dy.sum(-1, keepdim=True))
    # ~ wrong-axis: x.g = rstd / N * (N * dy - dy.sum(0) - xhat * (dy * xhat).sum(-1, keepdim=True))
    # ~ missing-factor: x.g = (N * dy - dy.sum(-1, keepdim=True) - xhat * (dy * xhat).sum(-1, keepdim=True)) / N
    # ~ wrong-scale: x.g = rstd * (N * dy - dy.sum(-1, keepdim=True) - xhat * (dy * xhat).sum(-1, keepdim=True))
    # ~ wrong-term-scale: x.g = rstd / N * (N * dy - dy.sum(-1, keepdim=True) + xhat * (dy * xhat).sum(-1, keepdim=True))
    # ~ wrong-exponent: x.g = rstd**2 / N * (N * dy - dy.sum(-1, keepdim=True) - xhat * (dy * xhat).sum(-1, keepdim=True))
    # ~ wrong-tensor: x.g = rstd / N * (N * dy - dy.sum(-1, keepdim=True) - x * (dy * xhat).sum(-1, keepdim=True))
    # = x.g = rstd * (dy - dy.mean(-1, keepdim=True) - xhat * (dy * xhat).mean(-1, keepdim=True))
    return loss
