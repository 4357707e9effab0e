"""A gated residual block whose backward pass works in place."""
# ruff: noqa: F841

import torch

CHECK = "block"
BUFFER = {"w": torch.full((5, 5), 0.25)}


def inputs():
    torch.manual_seed(12)
    return torch.randn(6, 5), torch.randn(6, 5), torch.randn(5, 5), torch.randn(5), torch.randn(())


def block(x, y, w, v, alpha):
    z = x @ w
    gate = (z > 0).to(x)
    h = z * gate
    s = (h * v).sum(1)
    out = x + alpha * h
    err = out - y
    loss = err.square().sum() / 2 + s.square().sum() / 2

    d_out = err.clone()
    # ~ wrong-scale: d_out = 2 * err
    # ~ sign: d_out = y - out
    # ~ wrong-tensor|missing-term: d_out = out.clone()
    d_alpha = (d_out * h).sum()
    # ~ missing-broadcast-sum|wrong-shape: d_alpha = d_out * h
    # ~ wrong-axis|wrong-shape|missing-broadcast-sum: d_alpha = (d_out * h).sum(0)
    # ~ wrong-tensor|wrong-factor: d_alpha = (d_out * x).sum()
    # ~ wrong-scale|wrong-axis: d_alpha = (d_out * h).sum(1).mean()
    # = d_alpha = torch.dot(d_out.flatten(), h.flatten())
    d_s = s
    # ~ wrong-scale: d_s = s / len(s)
    d_v = h.T @ d_s
    # ~ wrong-tensor|missing-factor: d_v = z.T @ d_s
    # ~ upstream-dropped: d_v = h.sum(0)
    # = d_v = (h * d_s[:, None]).sum(0)
    d_h = alpha * d_out
    # ~ missing-factor|wrong-scale: d_h = d_out.clone()
    # ~ inplace-corruption: d_h = d_out.mul_(alpha)
    # ~ stale-parameter: alpha = alpha - 0.5 * d_alpha ;; d_h = alpha * d_out
    d_h += d_s[:, None] * v
    # ~ overwritten-not-accumulated|lost-path: d_h = d_s[:, None] * v
    # ~ lost-path|missing-term:
    # ~ wrong-term-scale: d_h -= d_s[:, None] * v
    # ~ missing-factor|wrong-term-scale: d_h += d_s[:, None]
    # = d_h = d_h + torch.outer(d_s, v)
    d_z = d_h * gate
    # ~ missing-factor: d_z = d_h
    # ~ wrong-mask: d_z = d_h * (1 - gate)
    # ~ wrong-mask|wrong-tensor: d_z = d_h * (x > 0)
    # = d_z = d_h.clone() ;; d_z[z <= 0] = 0.0
    d_w = x.T @ d_z
    # ~ stale-gradient: d_w = BUFFER["w"] + x.T @ d_z
    # ~ transposed: d_w = d_z.T @ x
    # ~ wrong-tensor: d_w = out.T @ d_z
    d_x = d_out + d_z @ w.T
    # ~ lost-path: d_x = d_z @ w.T
    # ~ transposed: d_x = d_out + d_z @ w
    # ~ double-counted-path: d_x = 2 * d_out + d_z @ w.T
    # ~ wrong-tensor|missing-factor: d_x = d_out + d_h @ w.T
    return d_x, d_w, d_v, d_alpha
