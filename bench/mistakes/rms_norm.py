"""RMS norm before a linear layer, without biases, as in recent language models."""

import torch

CHECK = "step"


def inputs():
    torch.manual_seed(13)
    x = torch.randn(2, 4, 6)
    scale = torch.randn(6)
    w = torch.randn(6, 3) / 6**0.5
    return x, scale, w


def step(x, scale, w):
    d = x.size(-1)
    ms = x.pow(2).mean(-1, keepdim=True)
    rms = (ms + 1e-6).sqrt()
    xn = x / rms
    y = scale * xn
    out = y @ w
    loss = out.sigmoid().sum()

    s = out.sigmoid()
    out.g = s * (1 - s)
    # ~ missing-factor|missing-term: out.g = s
    # ~ wrong-exponent: out.g = s * (1 - s**2)
    # ~ double-applied|wrong-exponent|wrong-factor: out.g = s * (1 - s) * (1 - s)
    # ~ wrong-term-scale: out.g = s * (1 + s)
    # = out.g = s - s.square()
    w.g = torch.einsum("bti,bto->io", y, out.g)
    # ~ wrong-tensor|missing-factor: w.g = torch.einsum("bti,bto->io", xn, out.g)
    # ~ transposed|wrong-shape: w.g = torch.einsum("bti,bto->oi", y, out.g)
    # = w.g = y.flatten(0, 1).T @ out.g.flatten(0, 1)
    y.g = out.g @ w.T
    scale.g = (y.g * xn).sum((0, 1))
    # ~ missing-broadcast-sum|wrong-shape: scale.g = (y.g * xn).sum(0)
    # ~ wrong-tensor|missing-factor: scale.g = (y.g * x).sum((0, 1))
    # ~ wrong-scale: scale.g = (y.g * xn).mean((0, 1))
    xn.g = scale * y.g
    # ~ missing-factor: xn.g = y.g.clone()
    rms.g = -(xn.g * x / rms**2).sum(-1, keepdim=True)
    # ~ wrong-exponent|wrong-tensor: rms.g = -(xn.g * x / rms).sum(-1, keepdim=True)
    # ~ sign: rms.g = (xn.g * x / rms**2).sum(-1, keepdim=True)
    # ~ missing-factor: rms.g = -(xn.g / rms**2).sum(-1, keepdim=True)
    # ~ wrong-axis|wrong-shape: rms.g = -(xn.g * x / rms**2).sum(1, keepdim=True)
    # = rms.g = -(xn.g * xn).sum(-1, keepdim=True) / rms
    ms.g = rms.g / (2 * rms)
    # ~ wrong-scale: ms.g = rms.g / rms
    # ~ wrong-exponent|wrong-factor: ms.g = rms.g * rms / 2
    # ~ double-applied|wrong-exponent: ms.g = rms.g / (2 * rms.sqrt())
    x.g = xn.g / rms + 2 * x * ms.g / d
    # ~ lost-path|diagonal-jacobian|missing-term: x.g = xn.g / rms
    # ~ wrong-term-scale: x.g = xn.g / rms + 2 * x * ms.g
    # ~ wrong-term-scale: x.g = xn.g / rms - 2 * x * ms.g / d
    # ~ wrong-tensor: x.g = xn.g / rms + 2 * xn * ms.g / d
    # = x.g = torch.addcmul(xn.g / rms, x, ms.g, value=2 / d)
    return loss
