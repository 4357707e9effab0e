"""A hidden layer with inverted dropout."""

import torch

CHECK = "step"
KEEP = 0.75


def inputs():
    torch.manual_seed(19)
    return torch.randn(6, 5), torch.randn(6, 1), torch.randn(5, 8) / 2, torch.randn(8, 1) / 2


def step(x, y, w1, w2):
    generator = torch.Generator().manual_seed(0)
    h = x @ w1
    a = h.relu()
    mask = (torch.rand(a.shape, generator=generator) < KEEP).float()
    dropped = a * mask / KEEP
    out = dropped @ w2
    loss = (out - y).pow(2).mean()

    out.g = 2 * (out - y) / len(y)
    dropped.g = out.g @ w2.T
    w2.g = dropped.T @ out.g
    # ~ wrong-tensor|missing-factor: w2.g = a.T @ out.g
    # ~ wrong-scale|wrong-tensor: w2.g = (a * mask).T @ out.g
    # ~ wrong-tensor: w2.g = h.T @ out.g
    a.g = dropped.g * mask / KEEP
    # ~ wrong-scale: a.g = dropped.g * mask
    # ~ missing-factor|wrong-mask: a.g = dropped.g / KEEP
    # ~ wrong-mask: a.g = dropped.g * (1 - mask) / KEEP
    # ~ double-applied|wrong-scale: a.g = dropped.g * mask / KEEP / KEEP
    # ~ missing-factor: a.g = 1.0 * dropped.g
    # ~ wrong-scale: a.g = dropped.g * mask * KEEP
    # ~ upstream-dropped: a.g = mask / KEEP
    # ~ wrong-mask: a.g = dropped.g * (torch.rand(a.shape, generator=generator) < KEEP) / KEEP
    # = a.g = torch.where(mask.bool(), dropped.g / KEEP, 0.0)
    h.g = a.g * (h > 0)
    # ~ missing-factor: h.g = a.g * 1
    # ~ wrong-mask: h.g = a.g * (h < 0)
    # ~ wrong-mask|double-applied|missing-factor: h.g = a.g * mask
    # = h.g = a.g * (h.sign() + 1) / 2
    # = h.g = a.g * torch.heaviside(h, torch.zeros(()))
    w1.g = x.T @ h.g
    # ~ wrong-tensor|missing-factor: w1.g = x.T @ dropped.g
    # ~ missing-gradient:
    return loss
