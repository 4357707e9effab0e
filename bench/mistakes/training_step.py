"""One step of gradient descent: gradients are zeroed, accumulated and used to update the weights."""

import torch

CHECK = "sgd_step"
LR = 0.1


def inputs():
    torch.manual_seed(21)
    x, y = torch.randn(6, 5), torch.randn(6, 2)
    w1, b1, w2, b2 = torch.randn(5, 4) / 2, torch.zeros(4), torch.randn(4, 2) / 2, torch.zeros(2)
    for p in (w1, b1, w2, b2):
        p.g = torch.randn_like(p)  # left over from an earlier step
    return x, y, w1, b1, w2, b2


def sgd_step(x, y, w1, b1, w2, b2):
    for p in (w1, b1):
        p.g = torch.zeros_like(p)
        # ~ stale-gradient (w1, b1): p.g = getattr(p, "g", torch.zeros_like(p))
        # = p.g = p.new_zeros(p.shape)
    h = torch.tanh(x @ w1 + b1)
    out = h @ w2 + b2
    loss = ((out - y) ** 2).mean()
    # ~ inplace-corruption: loss = out.sub_(y).pow_(2).mean()

    out.g = 2 * (out - y) / out.numel()
    # ~ wrong-scale: out.g = 2 * (out - y) / out.shape[0]
    w2.g = h.T @ out.g
    # ~ stale-gradient: w2.g = w2.g + h.T @ out.g
    # ~ stale-gradient: w2.g += h.T @ out.g
    # ~ missing-gradient|stale-gradient:
    b2.g = out.g.sum(0)
    # ~ stale-gradient: b2.g += out.g.sum(0)
    h.g = out.g @ w2.T
    # ~ stale-parameter: w2.data -= LR * w2.g ;; h.g = out.g @ w2.T
    # ~ stale-parameter: h.g = out.g @ (w2 - LR * w2.g).T
    # = h.g = torch.matmul(w2, out.g.T).T
    a = (1 - h**2) * h.g
    # ~ missing-factor: a = h.g
    # ~ wrong-exponent: a = (1 - h) * h.g
    # = a = h.g - h * h * h.g
    w1.g += x.T @ a
    # ~ sign|wrong-term-scale: w1.g -= x.T @ a
    # ~ wrong-scale: w1.g += x.T @ a / len(x)
    # ~ missing-gradient|lost-path|missing-term (w1):
    # = w1.g.addmm_(x.T, a)
    b1.g += a.sum(0)
    # ~ wrong-scale: b1.g += a.mean(0)
    x.g = a @ w1.T
    # ~ stale-parameter: w1.data.sub_(LR * w1.g) ;; x.g = a @ w1.T
    # ~ wrong-tensor|upstream-dropped: x.g = h @ w1.T
    with torch.no_grad():
        for p in (w1, b1, w2, b2):
            p -= LR * p.g
            # = p.data = p.data - LR * p.g
    return loss.item()
