"""Softmax regression with an L2 penalty, written with plain exp and log."""

import torch

CHECK = "loss_and_grads"
KWARGS = "dict(reg=0.3)"


def inputs():
    torch.manual_seed(10)
    return torch.randn(7, 5), torch.randint(0, 4, (7,)), torch.randn(5, 4), torch.randn(4)


def loss_and_grads(X, y, W, b, reg=0.1):
    N = X.shape[0]
    scores = X @ W + b
    scores = scores - scores.max(dim=1, keepdim=True).values
    exp = scores.exp()
    probs = exp / exp.sum(dim=1, keepdim=True)
    data_loss = -probs[torch.arange(N), y].log().mean()
    loss = data_loss + 0.5 * reg * (W * W).sum()

    dscores = probs.clone()
    # ~ wrong-tensor|missing-factor: dscores = exp.clone()
    # ~ double-applied: dscores = probs.softmax(dim=1)
    # ~ wrong-axis: dscores = exp / exp.sum(dim=0, keepdim=True)
    dscores[torch.arange(N), y] -= 1
    # ~ missing-term|missing-factor|lost-path:
    # ~ wrong-term-scale|sign: dscores[torch.arange(N), y] += 1
    # ~ wrong-axis|wrong-mask|index-overwrite: dscores[:, y] -= 1
    # = dscores = dscores.scatter_add(1, y[:, None], -torch.ones(N, 1))
    # = dscores -= torch.eye(W.shape[1])[y]
    dscores /= N
    # ~ wrong-scale:
    # ~ wrong-scale: dscores /= dscores.numel()
    # ~ double-applied|wrong-scale: dscores /= N**2
    dW = X.T @ dscores
    # ~ wrong-scale: dW = X.T @ dscores / N
    # ~ wrong-tensor|missing-term: dW = X.T @ probs / N
    # = dW = torch.einsum("nd,nc->dc", X, dscores)
    dW += reg * W
    # ~ lost-path|missing-term:
    # ~ wrong-term-scale: dW += 2 * reg * W
    # ~ wrong-term-scale: dW += reg * W / N
    # ~ wrong-term-scale: dW -= reg * W
    # ~ overwritten-not-accumulated|lost-path: dW = reg * W
    # ~ wrong-exponent|wrong-tensor|double-applied: dW += reg * W * W
    # = dW = torch.add(dW, W, alpha=reg)
    db = dscores.sum(dim=0)
    # ~ wrong-axis|wrong-shape: db = dscores.sum(dim=1)
    # ~ wrong-scale: db = dscores.sum(dim=0) / N
    # ~ unknown|wrong-term-scale|wrong-tensor: db = dscores.sum(dim=0) + reg * b
    return loss, {"W": dW, "b": db}
