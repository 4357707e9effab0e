"""A vanilla RNN over a sequence in NumPy, forward and backward through time."""

import numpy as np
import torch

CHECK = "rnn_backward"
KWARGS = "dict(forward=rnn_forward, reference=torch_rnn)"


def inputs():
    rng = np.random.default_rng(37)
    return tuple(rng.standard_normal(shape) for shape in [(3, 4, 2), (3, 5), (2, 5), (5, 5), (5,)])


def torch_rnn(x, h0, Wx, Wh, b):
    hs, h = [], h0
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] @ Wx + h @ Wh + b)
        hs.append(h)
    return torch.stack(hs, 1)


def rnn_forward(x, h0, Wx, Wh, b):
    N, T, _D = x.shape
    h = np.zeros((N, T + 1, h0.shape[1]))
    h[:, -1] = h0
    for t in range(T):
        h[:, t] = np.tanh(x[:, t] @ Wx + h[:, t - 1] @ Wh + b)
    return h[:, :-1], (x, h, Wx, Wh)


def rnn_backward(dh, cache):
    x, h, Wx, Wh = cache
    T = x.shape[1]
    dx = np.zeros_like(x)
    dWx, dWh, db = np.zeros_like(Wx), np.zeros_like(Wh), np.zeros(Wh.shape[1])
    dprev = np.zeros_like(dh[:, 0])
    for t in range(T - 1, -1, -1):
        dnext = dh[:, t] + dprev
        # ~ lost-path: dnext = dh[:, t]
        # ~ lost-path|upstream-dropped: dnext = dprev if t < T - 1 else dh[:, t]
        # ~ double-counted-path|wrong-term-scale: dnext = dh[:, t] + 2 * dprev
        # ~ wrong-axis|wrong-tensor: dnext = dh[:, T - 1 - t] + dprev
        dz = dnext * (1 - h[:, t] ** 2)
        # ~ missing-factor: dz = dnext
        # ~ wrong-tensor|wrong-factor: dz = dnext * (1 - h[:, t - 1] ** 2)
        # ~ double-applied|wrong-tensor: dz = dnext * (1 - np.tanh(h[:, t]) ** 2)
        # ~ wrong-exponent|wrong-factor: dz = dnext * (1 - h[:, t])
        # ~ wrong-factor: dz = dnext * h[:, t] * (1 - h[:, t])
        # = dz = dnext - dnext * np.square(h[:, t])
        dx[:, t] = dz @ Wx.T
        # ~ missing-gradient (x):
        # ~ missing-factor|wrong-tensor: dx[:, t] = dnext @ Wx.T
        # = dx[:, t] = np.einsum("nh,dh->nd", dz, Wx)
        dWx += x[:, t].T @ dz
        # ~ overwritten-not-accumulated|lost-path: dWx = x[:, t].T @ dz
        # ~ wrong-scale: dWx += x[:, t].T @ dz / T
        dWh += h[:, t - 1].T @ dz
        # ~ wrong-tensor: dWh += h[:, t].T @ dz
        # ~ transposed: dWh += dz.T @ h[:, t - 1]
        # ~ overwritten-not-accumulated|lost-path: dWh = h[:, t - 1].T @ dz
        db += dz.sum(axis=0)
        # ~ overwritten-not-accumulated|lost-path: db = dz.sum(axis=0)
        # ~ wrong-scale: db += dz.mean(axis=0)
        dprev = dz @ Wh.T
        # ~ transposed: dprev = dz @ Wh
        # ~ missing-factor|wrong-tensor: dprev = dnext @ Wh.T
    dh0 = dprev
    # ~ missing-factor|wrong-tensor: dh0 = dz
    # ~ wrong-tensor: dh0 = dnext
    # ~ missing-gradient: dh0 = np.zeros_like(dprev)
    return dx, dh0, dWx, dWh, db
