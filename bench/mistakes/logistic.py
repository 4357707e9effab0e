"""Logistic regression: binary cross-entropy on logits, where the gradient is p - y."""

import torch

CHECK = "bce_step"


def inputs():
    torch.manual_seed(24)
    x = torch.randn(9, 4)
    y = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 0, 1])
    weight = torch.randn(4).requires_grad_()
    bias = torch.randn(1).requires_grad_()
    return x, y, weight, bias


def bce_step(x, y, weight, bias):
    n = y.shape[0]
    z = x.mv(weight) + bias
    # log(1 + exp(-|z|)) + max(z, 0) - z * y does not overflow
    losses = z.clamp(min=0) - z * y + torch.log1p(torch.exp(-z.abs()))
    loss = losses.mean()

    p = torch.sigmoid(z)
    # ~ wrong-tensor|missing-factor: p = z
    # ~ double-applied: p = torch.sigmoid(torch.sigmoid(z))
    # ~ sign|wrong-tensor|wrong-factor: p = torch.sigmoid(-z)
    # = p = 1 / (1 + torch.exp(-z))
    # = p = 0.5 * (1 + torch.tanh(z / 2))
    z.g = (p - y) / n
    # ~ double-applied|wrong-factor: z.g = (p - y) * p * (1 - p) / n
    # ~ sign: z.g = (y - p) / n
    # ~ wrong-scale: z.g = p - y
    # ~ missing-term|lost-path: z.g = p / n
    # ~ wrong-term-scale: z.g = (p - 2 * y) / n
    # ~ wrong-tensor|missing-factor|wrong-mask|wrong-term-scale: z.g = ((p > 0.5).float() - y) / n
    # = z.g = torch.where(y > 0.5, p - 1, p) / n
    weight.g = x.t().mv(z.g)
    # ~ wrong-scale|wrong-tensor: weight.g = x.t().mv(p - y)
    # ~ wrong-scale: weight.g = x.t().mv(z.g) / n
    # ~ missing-broadcast-sum|wrong-shape: weight.g = x * z.g[:, None]
    # = weight.g = (z.g @ x).clone()
    bias.g = z.g.sum().view(1)
    # ~ wrong-scale: bias.g = z.g.mean().view(1)
    # ~ wrong-shape: bias.g = z.g.sum()
    # ~ missing-gradient:
    # = bias.g = z.g.reshape(1, -1).sum(1)
    return loss
