"""Functions that emitted NumPy code brings with it, where the library has no word for an operation.

Their text is copied as it stands here: each needs `np` (and perhaps `math`) alone.
"""

from __future__ import annotations

import math

import numpy as np

# mypy: disable-error-code="no-untyped-def"


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x, axis):
    z = x - x.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def logsumexp(x, axis, keepdims=False):
    m = x.max(axis=axis, keepdims=True)
    m = np.where(np.isfinite(m), m, 0)
    out = m + np.log(np.exp(x - m).sum(axis=axis, keepdims=True))
    return out if keepdims else out.squeeze(axis)


def erf(x):
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


def erfc(x):
    return np.vectorize(math.erfc, otypes=[x.dtype])(x)


def lgamma(x):
    return np.vectorize(math.lgamma, otypes=[x.dtype])(x)


def along(index, axis):
    """x[along(index, axis)] is np.take_along_axis(x, index, axis)."""
    at = list(np.indices(index.shape, sparse=True))
    at[axis] = index
    return tuple(at)


def normalised(x, axes, eps):
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)


def pixel_shuffle(x, r):
    b, c, h, w = x.shape
    x = x.reshape(b, c // r**2, r, r, h, w)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, c // r**2, h * r, w * r)


def pixel_unshuffle(x, r):
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // r, r, w // r, r)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(b, c * r**2, h // r, w // r)


def block_diag(*blocks):
    """The blocks along the diagonal of a matrix of zeros."""
    rows, columns = sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)
    out = np.zeros((rows, columns), blocks[0].dtype)
    i = j = 0
    for b in blocks:
        out[i : i + b.shape[0], j : j + b.shape[1]] = b
        i, j = i + b.shape[0], j + b.shape[1]
    return out


def binary_cross_entropy(p, y):
    """Of each example, with logarithms no smaller than -100, as in PyTorch."""
    log_p, log_q = np.maximum(np.log(p), -100), np.maximum(np.log(1 - p), -100)
    return -(y * log_p + (1 - y) * log_q)


def cosine_similarity(u, v, axis, eps):
    u_norm = np.maximum(np.linalg.norm(u, axis=axis), eps)
    v_norm = np.maximum(np.linalg.norm(v, axis=axis), eps)
    return (u * v).sum(axis=axis) / (u_norm * v_norm)


def diagonal(n, offset=0):
    """The positions of the n elements of a diagonal."""
    i = np.arange(n)
    return i + max(-offset, 0), i + max(offset, 0)


def sort(x, axis, descending=False):
    order = np.argsort(-x if descending else x, axis=axis, kind="stable")
    return np.take_along_axis(x, order, axis=axis), order


def topk(x, k, axis, largest=True):
    order = np.argsort(-x if largest else x, axis=axis, kind="stable")
    order = np.take(order, np.arange(k), axis=axis)
    return np.take_along_axis(x, order, axis=axis), order


def kth(x, k, axis, keepdims=False):
    """The value that k others come before, and where it stands."""
    at = np.take(np.argsort(x, axis=axis, kind="stable"), np.array([k]), axis=axis)
    value = np.take_along_axis(x, at, axis=axis)
    return (value, at) if keepdims else (value.squeeze(axis), at.squeeze(axis))


def cumulated(extreme, x, axis):
    """The extreme of all values so far, and where the last of them stands."""
    values = extreme.accumulate(x, axis=axis)
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    places = np.expand_dims(np.arange(x.shape[axis]), others)
    return values, np.maximum.accumulate(np.where(x == values, places, 0), axis=axis)
