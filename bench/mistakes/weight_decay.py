"""Ridge regression: the L2 regulariser reads the weights a second time."""

import torch

CHECK = "loss_fn"
LAM = 0.3


def inputs():
    torch.manual_seed(20)
    return torch.randn(7, 4), torch.randn(7), torch.randn(4).requires_grad_(), torch.tensor(0.5, requires_grad=True)


def loss_fn(X, y, w, b):
    n = len(y)
    pred = X @ w + b
    r = pred - y
    data = r.dot(r) / (2 * n)
    # ~ inplace-corruption: data = r.pow_(2).sum() / (2 * n)
    # = data = r.norm() ** 2 / n / 2
    reg = LAM / 2 * (w * w).sum()
    loss = data + reg

    r.g = r / n
    # ~ wrong-scale: r.g = 2 * r / n
    # ~ wrong-scale: r.g = r / (n - 1)
    # ~ wrong-scale: r.g = r * 1
    pred.g = r.g.clone()
    b.g = pred.g.sum()
    # ~ wrong-scale: b.g = pred.g.mean()
    # ~ missing-broadcast-sum|wrong-shape: b.g = pred.g * 1
    # ~ wrong-shape: b.g = pred.g.sum(0, keepdim=True)
    # ~ missing-gradient:
    w.g = X.T @ pred.g + LAM * w
    # ~ lost-path|missing-term: w.g = X.T @ pred.g
    # ~ wrong-term-scale: w.g = X.T @ pred.g + 2 * LAM * w
    # ~ wrong-term-scale: w.g = X.T @ pred.g + LAM / 2 * w
    # ~ wrong-term-scale: w.g = X.T @ pred.g - LAM * w
    # ~ wrong-term-scale|missing-factor: w.g = X.T @ pred.g + LAM
    # ~ wrong-exponent|wrong-term-scale: w.g = X.T @ pred.g + LAM * w**2
    # ~ lost-path|missing-term: w.g = LAM * w
    # ~ wrong-scale: w.g = X.T @ pred.g / n + LAM * w / n
    # ~ double-counted-path|wrong-term-scale: w.g = X.T @ pred.g + X.T @ pred.g + LAM * w
    # = w.g = (X * pred.g[:, None]).sum(0).add(w, alpha=LAM)
    # = w.g = torch.addmv(w, X.T, pred.g, beta=LAM)
    return loss
