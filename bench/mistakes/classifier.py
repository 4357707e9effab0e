"""A linear classifier with softmax and cross-entropy, the gradient in one line: p - y."""

import torch
import torch.nn.functional as F

CHECK = "loss_and_grads"


def inputs():
    torch.manual_seed(9)
    x = torch.randn(7, 5)
    t = torch.randint(0, 4, (7,))
    w = torch.randn(5, 4, requires_grad=True)
    b = torch.randn(4, requires_grad=True)
    return x, t, w, b


def loss_and_grads(x, t, w, b):
    z = x @ w + b
    logp = z.log_softmax(1)
    loss = -logp[range(len(t)), t].mean()

    p = logp.exp()
    # ~ wrong-tensor|missing-factor: p = logp
    # ~ wrong-axis: p = z.softmax(0)
    # ~ double-applied: p = logp.exp().softmax(1)
    # = p = z.exp() / z.exp().sum(1, keepdim=True)
    # = p = logp.exp_()
    y = F.one_hot(t, 4).float()
    z.g = (p - y) / len(t)
    # ~ wrong-scale: z.g = p - y
    # ~ sign: z.g = (y - p) / len(t)
    # ~ missing-term: z.g = p / len(t)
    # ~ wrong-scale: z.g = (p - y) / z.numel()
    # ~ wrong-term-scale: z.g = (p + y) / len(t)
    # ~ double-applied|wrong-factor: z.g = p * (1 - p) * (p - y) / len(t)
    # ~ diagonal-jacobian|missing-term: z.g = -(1 - p) * y / len(t)
    # = z.g = p.index_put((torch.arange(len(t)), t), torch.tensor(-1.0), accumulate=True) / len(t)
    # = z.g = p / len(t) - y.div(y.sum())
    w.g = x.T @ z.g
    # ~ wrong-scale|wrong-tensor: w.g = x.T @ (p - y)
    # = w.g = sum(torch.outer(xi, gi) for xi, gi in zip(x, z.g))
    b.g = z.g.sum(0)
    # ~ wrong-scale: b.g = z.g.mean(0)
    # ~ missing-gradient:
    return loss
