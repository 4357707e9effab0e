"""Max pooling by naive loops in NumPy. Of several equal elements the first gets the gradient; the last, or an equal share
for each, is as good a subgradient."""

import numpy as np
import torch

CHECK = "maxpool_backward"
KWARGS = "dict(forward=maxpool_forward, reference=torch_maxpool)"


def inputs():
    x = np.random.default_rng(36).integers(0, 3, (2, 3, 6, 4))  # small whole numbers: many are equal
    return (x.astype(float),)


def torch_maxpool(x):
    return torch.nn.functional.max_pool2d(x, 2)


def maxpool_forward(x):
    N, C, H, W = x.shape
    out = np.zeros((N, C, H // 2, W // 2))
    for i in range(H // 2):
        for j in range(W // 2):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(2, 3))
    return out, (x, out)


def maxpool_backward(dout, cache):
    x, _out = cache
    dx = np.zeros_like(x)
    N, C, H, W = dout.shape
    for n in range(N):
        for c in range(C):
            for i in range(H):
                for j in range(W):
                    window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                    # ~ wrong-axis|wrong-tensor: window = x[n, c, i : i + 2, j : j + 2]
                    a, b = divmod(window.argmax(), 2)
                    # ~ wrong-mask|wrong-tensor: a, b = divmod(window.argmin(), 2)
                    # = a, b = divmod(3 - window.ravel()[::-1].argmax(), 2)
                    # = a, b = np.unravel_index(np.argmax(window), window.shape)
                    # = a, b = np.argwhere(window == _out[n, c, i, j])[0]
                    dx[n, c, 2 * i + a, 2 * j + b] += dout[n, c, i, j]
                    # ~ ties: dx[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += (window == window.max()) * dout[n, c, i, j]
                    # = dx[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += (window == window.max()) * dout[n, c, i, j] / (window == window.max()).sum()
                    # ~ upstream-dropped: dx[n, c, 2 * i + a, 2 * j + b] += 1
                    # ~ missing-factor|wrong-mask: dx[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += dout[n, c, i, j]
                    # ~ wrong-tensor|double-applied: dx[n, c, 2 * i + a, 2 * j + b] += dout[n, c, i, j] * window.max()
                    # = dx[n, c, 2 * i + a, 2 * j + b] = dout[n, c, i, j]
    return dx
