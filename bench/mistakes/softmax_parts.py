"""Softmax and cross-entropy by parts: every step of the forward pass has its line in the backward pass."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(8)
    logits = torch.randn(6, 5)
    targets = torch.tensor([0, 4, 2, 2, 1, 3])
    return logits, targets


def step(logits, targets):
    n = logits.shape[0]
    rows = torch.arange(n)
    maxes = logits.max(1, keepdim=True).values
    shifted = logits - maxes
    counts = shifted.exp()
    total = counts.sum(1, keepdim=True)
    total_inv = total**-1
    probs = counts * total_inv
    logprobs = probs.log()
    loss = -logprobs[rows, targets].mean()

    logprobs.g = torch.zeros_like(logprobs)
    logprobs.g[rows, targets] = -1.0 / n
    # ~ sign: logprobs.g[rows, targets] = 1.0 / n
    # ~ wrong-scale: logprobs.g[rows, targets] = -1.0
    # ~ wrong-axis|wrong-mask: logprobs.g[:, targets] = -1.0 / n
    probs.g = logprobs.g / probs
    # ~ wrong-factor|wrong-tensor: probs.g = logprobs.g / logprobs
    # ~ wrong-exponent|wrong-factor: probs.g = logprobs.g * probs
    # ~ missing-factor: probs.g = logprobs.g.clone()
    # = probs.g = logprobs.g * (-logprobs).exp()
    total_inv.g = (counts * probs.g).sum(1, keepdim=True)
    # ~ missing-broadcast-sum|wrong-shape: total_inv.g = counts * probs.g
    # ~ wrong-axis|wrong-shape: total_inv.g = (counts * probs.g).sum(0, keepdim=True)
    # ~ wrong-scale: total_inv.g = (counts * probs.g).mean(1, keepdim=True)
    # ~ missing-factor: total_inv.g = probs.g.sum(1, keepdim=True)
    # = total_inv.g = torch.einsum("ij,ij->i", counts, probs.g)[:, None]
    total.g = -(total**-2) * total_inv.g
    # ~ sign: total.g = total**-2 * total_inv.g
    # ~ wrong-exponent: total.g = -(total**-1) * total_inv.g
    # = total.g = -total_inv * total_inv * total_inv.g
    counts.g = total_inv * probs.g
    # ~ wrong-tensor|wrong-factor|wrong-exponent: counts.g = total * probs.g
    # ~ upstream-dropped: counts.g = total_inv.expand_as(counts).clone()
    counts.g += torch.ones_like(counts) * total.g
    # ~ lost-path|missing-term (counts):
    # ~ overwritten-not-accumulated|lost-path: counts.g = torch.ones_like(counts) * total.g
    # ~ wrong-term-scale|double-counted-path: counts.g += 2 * torch.ones_like(counts) * total.g
    # ~ wrong-term-scale: counts.g -= torch.ones_like(counts) * total.g
    # = counts.g = counts.g + total.g.expand(-1, counts.shape[1])
    shifted.g = counts * counts.g
    # ~ missing-factor: shifted.g = 1.0 * counts.g
    # ~ wrong-tensor: shifted.g = shifted * counts.g
    # ~ double-applied|wrong-factor: shifted.g = counts.exp() * counts.g
    logits.g = shifted.g.clone()
    # ~ sign: logits.g = -shifted.g
    return loss
