"""The two-layer network of the course notebooks, in one function; the hidden layer is as wide as the input."""

import torch

CHECK = "forward_backward"


def inputs():
    torch.manual_seed(2)
    x = torch.randn(7, 5)
    targ = torch.randn(7)
    w1 = torch.randn(5, 5) * (2 / 5) ** 0.5
    b1 = torch.randn(5) * 0.1
    w2 = torch.randn(5, 1) / 5**0.5
    b2 = torch.zeros(1)
    return x, targ, w1, b1, w2, b2


def forward_backward(inp, targ, w1, b1, w2, b2):
    # forward pass:
    l1 = inp @ w1 + b1
    l2 = l1.clamp_min(0.0)
    out = l2 @ w2 + b2
    diff = out[:, 0] - targ
    loss = diff.pow(2).mean()

    # backward pass:
    out.g = 2.0 * diff[:, None] / inp.shape[0]
    # ~ wrong-scale: out.g = 2.0 * diff[:, None]
    # ~ sign: out.g = 2.0 * (targ - out[:, 0])[:, None] / inp.shape[0]
    # ~ missing-term|wrong-tensor: out.g = 2.0 * out / inp.shape[0]
    # ~ wrong-scale: out.g = diff[:, None] / inp.shape[0]
    # = out.g = (2.0 * diff / diff.nelement()).unsqueeze(-1)
    l2.g = out.g @ w2.t()
    # ~ upstream-dropped|missing-factor: l2.g = torch.ones_like(out) @ w2.t()
    # = l2.g = out.g * w2.squeeze(-1)
    w2.g = l2.t() @ out.g
    # ~ wrong-tensor: w2.g = l1.t() @ out.g
    # ~ wrong-scale: w2.g = (l2 * out.g).mean(0)[:, None]
    # ~ wrong-shape: w2.g = (l2 * out.g).sum(0)
    # ~ missing-gradient:
    # = w2.g = (l2.unsqueeze(-1) * out.g.unsqueeze(1)).sum(0)
    b2.g = out.g.sum(0)
    # ~ missing-gradient:
    # ~ missing-broadcast-sum|wrong-shape: b2.g = out.g * 1.0
    mask = (l1 > 0).float()
    # ~ wrong-mask: mask = (l1 < 0).float()
    # ~ wrong-mask: mask = (inp > 0).float()
    # ~ missing-factor|wrong-mask: mask = torch.ones_like(l1)
    # = mask = (l2 > 0).to(l1.dtype)
    l1.g = mask * l2.g
    # ~ missing-factor: l1.g = l2.g + 0
    # ~ wrong-factor|wrong-tensor|double-applied: l1.g = l2 * l2.g
    # = l1.g = torch.where(l1 > 0, l2.g, torch.zeros(()))
    inp.g = l1.g @ w1.t()
    # ~ transposed: inp.g = l1.g @ w1
    # ~ wrong-tensor|missing-factor: inp.g = l2.g @ w1.t()
    w1.g = inp.t() @ l1.g
    # ~ transposed: w1.g = l1.g.t() @ inp
    # ~ wrong-tensor|missing-factor: w1.g = inp.t() @ l2.g
    # ~ wrong-tensor: w1.g = l2.t() @ l1.g
    b1.g = l1.g.sum(0)
    # ~ wrong-tensor|missing-factor: b1.g = l2.g.sum(0)
    # ~ wrong-axis|wrong-shape: b1.g = l1.g.sum(1)
    # ~ wrong-scale: b1.g = l1.g.mean(0)
    return loss
