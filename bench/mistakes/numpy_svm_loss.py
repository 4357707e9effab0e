"""The multi-class hinge loss in NumPy: one function returns the loss and its gradient."""

import numpy as np
import torch

CHECK = "svm_loss"
KWARGS = "dict(reference=torch_hinge, wrt=['x'])"


def inputs():
    rng = np.random.default_rng(39)
    return rng.standard_normal((7, 5)), rng.integers(0, 5, 7)


def torch_hinge(x, y):
    return torch.nn.functional.multi_margin_loss(x, y) * x.shape[1]


def svm_loss(x, y):
    N = x.shape[0]
    rows = np.arange(N)
    margins = np.maximum(0, x - x[rows, y][:, None] + 1.0)
    margins[rows, y] = 0
    loss = np.sum(margins) / N
    dx = (margins > 0).astype(float)
    # ~ wrong-mask: dx = (margins == 0).astype(float)
    # ~ wrong-mask: dx = np.ones_like(x)
    # ~ wrong-mask|wrong-tensor: dx = (x > 0).astype(float)
    # ~ wrong-factor|wrong-tensor: dx = margins.copy()
    # = dx = np.sign(margins)
    count = np.sum(margins > 0, axis=1)
    # ~ wrong-axis|wrong-scale: count = np.mean(margins > 0, axis=1)
    # ~ wrong-tensor: count = np.sum(margins, axis=1)
    # ~ wrong-factor|wrong-term-scale: count = 1
    # = count = np.count_nonzero(margins, axis=1)
    dx[rows, y] -= count
    # ~ missing-term|lost-path:
    # ~ sign|wrong-term-scale: dx[rows, y] += count
    # ~ wrong-axis|wrong-term-scale: dx[:, y] -= count
    # = dx[rows, y] = -count
    dx /= N
    # ~ wrong-scale:
    # ~ wrong-scale: dx /= x.size
    # = dx = np.divide(dx, len(x))
    return loss, dx
