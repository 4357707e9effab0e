"""Layers as pairs of NumPy functions: the backward one is given the cache that the forward one returned."""

import numpy as np

CHECK = "step"


def inputs():
    rng = np.random.default_rng(3)
    params = {
        "W1": rng.standard_normal((5, 6)),
        "b1": rng.standard_normal(6),
        "W2": rng.standard_normal((6, 3)),
        "b2": rng.standard_normal(3),
    }
    return rng.standard_normal((8, 5)), rng.integers(0, 3, 8), params


def affine_forward(x, w, b):
    return x @ w + b, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    dx = dout @ w.T
    # ~ sign: dx = -dout @ w.T
    dw = x.T @ dout
    # ~ wrong-scale: dw = x.T @ dout / len(dout)
    db = dout.sum(axis=0)
    return dx, dw, db


def relu_forward(x):
    return np.maximum(x, 0), x


def relu_backward(dout, cache):
    x = cache
    dx = dout * (x > 0)
    # ~ missing-factor: dx = dout
    # ~ wrong-mask: dx = dout * (x < 0)
    return dx
    # ~ missing-factor|wrong-tensor: return dout


def softmax_loss(scores, y):
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    n = len(y)
    loss = -np.log(p[np.arange(n), y]).mean()
    d = p.copy()
    d[np.arange(n), y] -= 1
    d /= n
    # ~ wrong-scale: d /= 1
    return loss, d


def step(x, y, params):
    h, c1 = affine_forward(x, params["W1"], params["b1"])
    a, c2 = relu_forward(h)
    s, c3 = affine_forward(a, params["W2"], params["b2"])
    loss, d = softmax_loss(s, y)
    grads = {}
    d, grads["W2"], grads["b2"] = affine_backward(d, c3)
    d = relu_backward(d, c2)
    # ~ sign: d = -relu_backward(d, c2)
    d, grads["W1"], grads["b1"] = affine_backward(d, c1)
    return loss, grads
