"""Linear regression by least squares; the step returns its loss and two gradients."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(0)
    return torch.randn(6, 5), torch.randn(6, 4), torch.randn(5, 4), torch.randn(4)


def step(x, y, w, b):
    out = x @ w + b
    diff = out - y
    loss = (diff**2).mean()

    dout = 2 * diff / diff.numel()
    # ~ wrong-scale: dout = 2 * diff / len(x)
    # ~ wrong-scale: dout = diff / diff.numel()
    # ~ wrong-scale: dout = 2 * diff
    # ~ sign: dout = 2 * (y - out) / diff.numel()
    # ~ wrong-exponent|wrong-factor: dout = 2 * diff**2 / diff.numel()
    # ~ wrong-tensor|missing-term: dout = 2 * out / diff.numel()
    # = dout = (diff + diff) / diff.numel()
    # = dout = diff * (2.0 / out.nelement())
    dw = x.T @ dout
    # ~ transposed|wrong-shape: dw = dout.T @ x
    # ~ wrong-scale: dw = x.T @ dout / len(x)
    # ~ wrong-tensor: dw = x.T @ out
    # ~ upstream-dropped: dw = x.T @ torch.ones_like(dout)
    # = dw = torch.einsum("ni,nj->ij", x, dout)
    # = dw = (dout.T @ x).T
    # = dw = sum(torch.outer(x[i], dout[i]) for i in range(len(x)))
    db = dout.sum(0)
    # ~ wrong-scale: db = dout.mean(0)
    # ~ wrong-shape: db = dout.sum(0, keepdim=True)
    # ~ missing-broadcast-sum|wrong-shape: db = dout
    # ~ wrong-axis|wrong-shape: db = dout.sum(1)
    # ~ missing-gradient: db = torch.zeros_like(b)
    # ~ missing-gradient: db = None
    # = db = torch.ones(len(dout)) @ dout
    return loss, dw, db
