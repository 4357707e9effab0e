"""A network with one hidden layer and a residual; the gradients come back in a dictionary."""
# ruff: noqa: F841

import torch

CHECK = "gradients"


def inputs():
    torch.manual_seed(1)
    params = [torch.randn(5, 4), torch.randn(4), torch.randn(4, 5), torch.randn(5)]
    return torch.randn(6, 5), torch.randn(6, 5), *params


def gradients(inp, target, w1, b1, w2, b2):
    # forward
    z1 = inp @ w1 + b1
    h1 = torch.relu(z1)
    z2 = h1 @ w2 + b2
    res = z2 + inp
    loss = 0.5 * (res - target).pow(2).sum() / inp.shape[0]

    # backward
    grads = {}
    dres = (res - target) / inp.shape[0]
    # ~ wrong-scale: dres = res - target
    # ~ wrong-scale: dres = (res - target) / res.numel()
    # ~ sign: dres = (target - res) / inp.shape[0]
    # ~ wrong-tensor|missing-term: dres = (z2 - target) / inp.shape[0]
    grads["w2"] = h1.T @ dres
    # ~ wrong-tensor: grads["w2"] = z1.T @ dres
    # ~ transposed|wrong-shape: grads["w2"] = dres.T @ h1
    # ~ missing-gradient (w2):
    # = grads["w2"] = torch.tensordot(h1, dres, dims=([0], [0]))
    # ~ stale-parameter: grads["w2"] = h1.T @ dres ;; w2 = w2 - 0.5 * grads["w2"]
    grads["b2"] = dres.sum(0)
    # ~ wrong-axis|wrong-shape: grads["b2"] = dres.sum(1)
    # ~ missing-gradient (b2):
    dh1 = dres @ w2.T
    # ~ transposed|wrong-shape|wrong-tensor: dh1 = dres @ w1
    # = dh1 = (w2 @ dres.T).T
    dz1 = dh1 * (z1 > 0)
    # ~ missing-factor: dz1 = dh1
    # ~ wrong-mask: dz1 = dh1 * (z1 < 0)
    # ~ wrong-tensor|wrong-mask: dz1 = dh1 * (dh1 > 0)
    # ~ wrong-factor|wrong-tensor: dz1 = dh1 * h1
    # = dz1 = torch.where(h1 > 0, dh1, torch.zeros_like(dh1))
    # = dz1 = dh1.masked_fill(z1 <= 0, 0.0)
    grads["w1"] = inp.T @ dz1
    # ~ wrong-scale: grads["w1"] = inp.T @ dz1 / len(inp)
    # ~ wrong-tensor|missing-factor: grads["w1"] = inp.T @ dh1
    grads["b1"] = dz1.sum(dim=0)
    # ~ wrong-shape: grads["b1"] = dz1.sum(dim=0, keepdim=True)
    # ~ wrong-scale: grads["b1"] = dz1.mean(dim=0)
    grads["inp"] = dz1 @ w1.T + dres
    # ~ lost-path: grads["inp"] = dz1 @ w1.T
    # ~ double-counted-path: grads["inp"] = dz1 @ w1.T + 2 * dres
    # ~ wrong-term-scale: grads["inp"] = dz1 @ w1.T - dres
    # = grads["inp"] = torch.addmm(dres, dz1, w1.T)
    return grads
