"""The softmax loss in NumPy: one function returns the loss and its gradient."""

import numpy as np
import torch

CHECK = "softmax_loss"
KWARGS = "dict(reference=torch_loss, wrt=['x'])"


def inputs():
    rng = np.random.default_rng(34)
    return rng.standard_normal((7, 5)), rng.integers(0, 5, 7)


def torch_loss(x, y):
    return torch.nn.functional.cross_entropy(x, y)


def softmax_loss(x, y):
    N = x.shape[0]
    shifted = x - np.max(x, axis=1, keepdims=True)
    Z = np.sum(np.exp(shifted), axis=1, keepdims=True)
    log_probs = shifted - np.log(Z)
    probs = np.exp(log_probs)
    loss = -np.sum(log_probs[np.arange(N), y]) / N
    dx = probs.copy()
    # ~ wrong-tensor|missing-factor: dx = log_probs.copy()
    # ~ wrong-tensor|missing-factor: dx = np.exp(shifted)
    # ~ double-applied: dx = np.exp(probs) / np.exp(probs).sum(axis=1, keepdims=True)
    # ~ wrong-axis: dx = np.exp(shifted) / np.exp(shifted).sum(axis=0, keepdims=True)
    dx[np.arange(N), y] -= 1
    # ~ missing-term:
    # ~ sign|wrong-term-scale: dx[np.arange(N), y] += 1
    # ~ wrong-axis|wrong-mask: dx[:, y] -= 1
    # ~ overwritten-not-accumulated|wrong-mask: dx[np.arange(N), y] = -1
    # = dx -= np.eye(x.shape[1])[y]
    # = np.subtract.at(dx, (np.arange(N), y), 1)
    dx /= N
    # ~ wrong-scale:
    # ~ wrong-scale: dx /= x.size
    # ~ sign: dx /= -N
    # ~ double-applied|wrong-scale: dx /= N * N
    # = dx = dx * (1.0 / len(y))
    return loss, dx
