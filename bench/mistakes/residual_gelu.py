"""A residual block with the tanh approximation of gelu."""

import math

import torch

CHECK = "step"
C = math.sqrt(2 / math.pi)


def inputs():
    torch.manual_seed(15)
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    w1, w2 = torch.randn(4, 7) / 2, torch.randn(7, 4) / 7**0.5
    return x, y, w1, w2


def step(x, y, w1, w2):
    h = x @ w1
    u = C * (h + 0.044715 * h**3)
    th = torch.tanh(u)
    a = 0.5 * h * (1 + th)
    # ~ inplace-corruption: a = 0.5 * h * th.add_(1)
    out = x + a @ w2
    loss = ((out - y) ** 2).mean()

    out.g = 2 * (out - y) / y.numel()
    # ~ wrong-scale: out.g = 2 * (out - y) / len(y)
    a.g = out.g @ w2.T
    w2.g = a.T @ out.g
    # ~ wrong-tensor: w2.g = h.T @ out.g
    # ~ wrong-tensor: w2.g = th.T @ out.g
    th.g = 0.5 * h * a.g
    # ~ missing-factor: th.g = 0.5 * a.g
    # ~ wrong-scale: th.g = h * a.g
    u.g = (1 - th**2) * th.g
    # ~ wrong-exponent: u.g = (1 - th) * th.g
    # ~ wrong-tensor: u.g = (1 - u**2) * th.g
    # ~ wrong-term-scale: u.g = (1 + th**2) * th.g
    # ~ double-applied|wrong-tensor: u.g = (1 - torch.tanh(th) ** 2) * th.g
    # = u.g = th.g / torch.cosh(u).square()
    h.g = 0.5 * (1 + th) * a.g + u.g * C * (1 + 3 * 0.044715 * h**2)
    # ~ lost-path|missing-term: h.g = 0.5 * (1 + th) * a.g
    # ~ lost-path|missing-term: h.g = u.g * C * (1 + 3 * 0.044715 * h**2)
    # ~ wrong-term-scale: h.g = 0.5 * (1 + th) * a.g + u.g * C * (1 + 0.044715 * h**2)
    # ~ wrong-exponent|wrong-term-scale: h.g = 0.5 * (1 + th) * a.g + u.g * C * (1 + 3 * 0.044715 * h**3)
    # ~ wrong-term-scale|missing-factor: h.g = 0.5 * (1 + th) * a.g + u.g * (1 + 3 * 0.044715 * h**2)
    # = h.g = torch.addcmul(u.g * C * (1 + 0.134145 * h * h), 1 + th, a.g, value=0.5)
    w1.g = x.T @ h.g
    # ~ missing-gradient:
    # ~ wrong-tensor: w1.g = x.T @ u.g
    x.g = out.g + h.g @ w1.T
    # ~ lost-path|missing-term: x.g = h.g @ w1.T
    # ~ lost-path|missing-term: x.g = out.g + 0
    # ~ double-counted-path|wrong-term-scale: x.g = 2 * out.g + h.g @ w1.T
    # ~ wrong-term-scale: x.g = out.g - h.g @ w1.T
    # ~ wrong-term-scale: x.g = out.g + len(x) * h.g @ w1.T
    # = x.g = torch.addmm(out.g, h.g, w1.T)
    return loss
