"""The largest of each group, with ties (rounded activations): the gradient is shared by the largest."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(22)
    x = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 1.0], [0.0, -1.0, 4.0, 2.0]])
    return x, torch.randn(3), torch.randn(4)


def step(x, y, gain):
    scaled = x * gain.abs().max()
    top = scaled.amax(1)
    err = top - y
    loss = (err**2).mean()

    top.g = 2 * err / err.numel()
    # ~ wrong-scale: top.g = 2 * err
    # ~ sign: top.g = 2 * (y - top) / err.numel()
    # ~ wrong-exponent: top.g = 2 * err**2 / err.numel()
    y.g = -top.g
    is_max = (scaled == top[:, None]).float()
    # ~ wrong-mask: is_max = (scaled < top[:, None]).float()
    # ~ wrong-axis|wrong-mask: is_max = (scaled == scaled.amax(0)).float()
    # ~ wrong-mask: is_max = (scaled >= 0).float()
    # = is_max = torch.isclose(scaled, top[:, None], rtol=0.0, atol=0.0).to(x.dtype)
    scaled.g = top.g[:, None] * is_max / is_max.sum(1, keepdim=True)
    # ~ ties: scaled.g = top.g[:, None] * is_max
    # ~ missing-factor|wrong-mask: scaled.g = top.g[:, None] * torch.ones_like(scaled)
    # ~ wrong-axis|ties: scaled.g = top.g[:, None] * is_max / is_max.sum(0, keepdim=True).clamp(min=1)
    # ~ upstream-dropped: scaled.g = is_max / is_max.sum(1, keepdim=True)
    # ~ wrong-axis|ties: scaled.g = top.g[:, None] * is_max / is_max.sum()
    # = scaled.g = torch.einsum("i,ij->ij", top.g / is_max.sum(1), is_max)
    x.g = scaled.g * gain.abs().max()
    # ~ missing-factor: x.g = scaled.g * 1.0
    # ~ wrong-tensor: x.g = scaled.g * gain.max()
    return loss
