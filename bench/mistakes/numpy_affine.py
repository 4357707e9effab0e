"""The affine layer of a first course, in NumPy: any input shape, a cache, three gradients."""

import numpy as np
import torch

CHECK = "affine_backward"
KWARGS = "dict(forward=affine_forward, reference=torch_affine)"


def inputs():
    rng = np.random.default_rng(30)
    return rng.standard_normal((6, 2, 3)), rng.standard_normal((6, 5)), rng.standard_normal(5)


def torch_affine(x, w, b):
    return torch.nn.functional.linear(x.flatten(1), w.T, b)


def affine_forward(x, w, b):
    """x (N, d_1, ..., d_k), w (D, M), b (M,); returns the output (N, M) and the cache."""
    out = x.reshape(x.shape[0], -1).dot(w) + b
    cache = (x, w, b)
    return out, cache


def affine_backward(dout, cache):
    x, w, _b = cache
    dx = dout.dot(w.T).reshape(x.shape)
    # ~ wrong-shape: dx = dout.dot(w.T)
    # ~ transposed: dx = w.dot(dout.T).reshape(x.shape)
    # ~ wrong-scale: dx = dout.dot(w.T).reshape(x.shape) / x.shape[0]
    # ~ upstream-dropped: dx = np.ones_like(dout).dot(w.T).reshape(x.shape)
    # = dx = np.einsum("nm,dm->nd", dout, w).reshape(*x.shape)
    dw = x.reshape(x.shape[0], -1).T.dot(dout)
    # ~ transposed|wrong-shape: dw = dout.T.dot(x.reshape(x.shape[0], -1))
    # ~ wrong-shape|transposed: dw = x.reshape(-1, x.shape[0]).dot(dout)
    # ~ wrong-scale: dw = x.reshape(x.shape[0], -1).T.dot(dout) / len(x)
    # ~ sign: dw = -x.reshape(x.shape[0], -1).T.dot(dout)
    # = dw = np.tensordot(x.reshape(len(x), -1), dout, axes=(0, 0))
    db = np.sum(dout, axis=0)
    # ~ wrong-axis|wrong-shape: db = np.sum(dout, axis=1)
    # ~ wrong-scale: db = np.mean(dout, axis=0)
    # ~ wrong-shape: db = np.sum(dout, axis=0, keepdims=True)
    # ~ missing-broadcast-sum|wrong-shape: db = dout
    # ~ missing-gradient: db = np.zeros(w.shape[1])
    # = db = np.ones(len(dout)) @ dout
    return dx, dw, db
