"""Batch norm with the unbiased variance, in the compact form."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(12)
    h, gain, bias, y = torch.randn(7, 5) + 0.3, torch.randn(1, 5), torch.randn(1, 5), torch.randn(7, 5)
    return h, gain.requires_grad_(), bias.requires_grad_(), y


def step(h, bngain, bnbias, y):
    n = h.shape[0]
    meani = 1 / n * h.sum(0, keepdim=True)
    diff = h - meani
    var = 1 / (n - 1) * (diff**2).sum(0, keepdim=True)
    var_inv = (var + 1e-5) ** -0.5
    raw = diff * var_inv
    act = bngain * raw + bnbias
    loss = (act - y).abs().mean()

    act.g = (act - y).sign() / act.numel()
    # ~ wrong-scale: act.g = (act - y).sign() / n
    # ~ wrong-factor|wrong-exponent|wrong-tensor: act.g = 2 * (act - y) / act.numel()
    # ~ sign: act.g = (y - act).sign() / act.numel()
    # ~ missing-factor: act.g = torch.ones_like(act) / act.numel()
    bngain.g = (raw * act.g).sum(0, keepdim=True)
    # ~ wrong-shape: bngain.g = (raw * act.g).sum(0)
    # ~ wrong-axis|wrong-shape: bngain.g = (raw * act.g).sum(1, keepdim=True)
    # ~ wrong-tensor|missing-factor: bngain.g = (diff * act.g).sum(0, keepdim=True)
    # ~ wrong-tensor: bngain.g = (h * act.g).sum(0, keepdim=True)
    # = bngain.g = torch.diagonal(raw.T @ act.g)[None]
    bnbias.g = act.g.sum(0, keepdim=True)
    # ~ missing-broadcast-sum|wrong-shape: bnbias.g = act.g * 1.0
    # ~ wrong-scale: bnbias.g = act.g.mean(0, keepdim=True)
    # ~ missing-gradient:
    raw.g = bngain * act.g
    # ~ missing-factor: raw.g = 1.0 * act.g
    # ~ wrong-tensor: raw.g = bnbias * act.g
    h.g = var_inv / n * (n * raw.g - raw.g.sum(0) - n / (n - 1) * raw * (raw.g * raw).sum(0))
    # ~ wrong-term-scale|wrong-scale: h.g = var_inv / n * (n * raw.g - raw.g.sum(0) - raw * (raw.g * raw).sum(0))
    # ~ diagonal-jacobian|lost-path: h.g = var_inv * raw.g
    # ~ lost-path|missing-term: h.g = var_inv / n * (n * raw.g - n / (n - 1) * raw * (raw.g * raw).sum(0))
    # ~ lost-path|missing-term: h.g = var_inv / n * (n * raw.g - raw.g.sum(0))
    # ~ wrong-axis: h.g = var_inv / n * (n * raw.g - raw.g.sum(1, keepdim=True) - n / (n - 1) * raw * (raw.g * raw).sum(0))
    # ~ wrong-scale: h.g = var_inv * (n * raw.g - raw.g.sum(0) - n / (n - 1) * raw * (raw.g * raw).sum(0))
    # ~ wrong-term-scale: h.g = var_inv / n * (raw.g - raw.g.sum(0) - n / (n - 1) * raw * (raw.g * raw).sum(0))
    # ~ wrong-tensor: h.g = var_inv / n * (n * act.g - act.g.sum(0) - n / (n - 1) * raw * (act.g * raw).sum(0))
    # = h.g = var_inv * (raw.g - raw.g.mean(0) - raw * (raw.g * raw).sum(0) / (n - 1))
    return loss
