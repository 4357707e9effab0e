"""An autoencoder whose decoder is the transpose of its encoder: the weight is read twice."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(18)
    x = torch.randn(6, 5)
    w = torch.randn(5, 5) / 5**0.5
    b = torch.randn(5) * 0.1
    c = torch.randn(5) * 0.1
    return x, w, b, c


def step(x, w, b, c):
    pre = x @ w + b
    code = torch.tanh(pre)
    recon = code @ w.T + c
    err = recon - x
    # = err = recon.sub_(x)
    loss = err.pow(2).sum() / x.shape[0]
    # ~ inplace-corruption: loss = err.pow_(2).sum() / x.shape[0]

    recon.g = 2 * err / x.shape[0]
    # ~ wrong-scale: recon.g = err / x.shape[0]
    # ~ wrong-exponent: recon.g = 2 * err.pow(2) / x.shape[0]
    c.g = recon.g.sum(0)
    # ~ wrong-axis|wrong-shape: c.g = recon.g.sum(-1)
    # ~ missing-gradient:
    code.g = recon.g @ w
    # ~ transposed: code.g = recon.g @ w.T
    # ~ upstream-dropped|wrong-tensor: code.g = recon @ w
    pre.g = (1 - code * code) * code.g
    # ~ wrong-tensor: pre.g = (1 - pre * pre) * code.g
    # ~ double-applied|wrong-exponent: pre.g = (1 - code * code) ** 2 * code.g
    # ~ double-applied: pre.g = (1 - torch.tanh(code) ** 2) * code.g
    # ~ missing-factor: pre.g = code.g + 0.0
    b.g = pre.g.sum(0)
    # ~ wrong-tensor|missing-factor: b.g = code.g.sum(0)
    w.g = x.T @ pre.g + recon.g.T @ code
    # ~ lost-path|missing-term: w.g = x.T @ pre.g
    # ~ lost-path|missing-term: w.g = recon.g.T @ code
    # ~ transposed: w.g = x.T @ pre.g + code.T @ recon.g
    # ~ wrong-term-scale: w.g = x.T @ pre.g - recon.g.T @ code
    # ~ double-counted-path|wrong-term-scale: w.g = x.T @ pre.g + 2 * recon.g.T @ code
    # ~ wrong-scale|double-counted-path: w.g = 2 * (x.T @ pre.g + recon.g.T @ code)
    # = w.g = torch.cat([x, recon.g]).T @ torch.cat([pre.g, code])
    x.g = pre.g @ w.T - recon.g
    # ~ lost-path|missing-term: x.g = pre.g @ w.T
    # ~ wrong-term-scale: x.g = pre.g @ w.T + recon.g
    # = x.g = torch.addmm(recon.g, pre.g, w.T, beta=-1)
    return loss
