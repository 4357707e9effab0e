"""Linear regression with a square loss, summed over the outputs and averaged over the rows."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(1)
    x, y = torch.randn(6, 5), torch.randn(6, 4)
    w, b = torch.randn(5, 4) / 5**0.5, torch.randn(4)
    return x, y, w.requires_grad_(), b.requires_grad_()


def step(x, y, w, b):
    out = x @ w + b
    diff = out - y
    loss = (diff**2).sum() / len(x)

    diff.g = 2 * diff / len(x)
    # ~ wrong-scale: diff.g = diff / len(x)
    # ~ wrong-scale: diff.g = 2 * diff / diff.numel()
    # ~ wrong-exponent: diff.g = 2 * diff**2 / len(x)
    # ~ wrong-tensor: diff.g = 2 * out / len(x)
    # = diff.g = diff.mul(2.0).div(x.shape[0])
    # = diff.g = (diff + diff) * (1 / len(x))
    out.g = diff.g.clone()
    # ~ sign: out.g = -diff.g
    # ~ double-applied|wrong-factor: out.g = 2 * diff * diff.g
    y.g = -diff.g
    # ~ sign: y.g = diff.g.clone()
    w.g = x.T @ out.g
    # ~ transposed|wrong-shape: w.g = out.g.T @ x
    # ~ wrong-scale: w.g = x.T @ out.g / len(x)
    # ~ upstream-dropped|wrong-tensor: w.g = x.T @ torch.ones_like(out)
    # ~ wrong-tensor|upstream-dropped|wrong-scale: w.g = x.T @ diff
    # ~ missing-gradient:
    # = w.g = torch.einsum("ni,no->io", x, out.g)
    # = w.g = (x[:, :, None] * out.g[:, None, :]).sum(0)
    b.g = out.g.sum(0)
    # ~ wrong-scale: b.g = out.g.mean(0)
    # ~ missing-broadcast-sum|wrong-shape: b.g = out.g + 0
    # ~ wrong-axis|wrong-shape: b.g = out.g.sum(1)
    # ~ wrong-shape: b.g = out.g.sum(0, keepdim=True)
    # = b.g = torch.ones(len(out)) @ out.g
    x.g = out.g @ w.T
    # ~ sign: x.g = -out.g @ w.T
    # = x.g = (w @ out.g.T).T
    return loss
