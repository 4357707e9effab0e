"""Layers as people write them by hand in NumPy, each with its backward pass."""

import math

import numpy as np
from numpy import exp


def affine(x, w, b, dout):
    out = x.reshape(x.shape[0], -1).dot(w) + b
    cache = (x, w, b)
    x, w, b = cache
    dx = dout.dot(w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], -1).T.dot(dout)
    db = np.sum(dout, axis=0)
    return out, dx, dw, db


def relu(x, dout):
    out = np.maximum(0, x)
    dx = dout.copy()
    dx[x <= 0] = 0
    return out, dx, dout * (x > 0)


def batchnorm(x, gamma, beta, dout, eps=1e-5):
    N, D = x.shape
    mu = 1.0 / N * np.sum(x, axis=0)
    xmu = x - mu
    sq = xmu**2
    var = 1.0 / N * np.sum(sq, axis=0)
    sqrtvar = np.sqrt(var + eps)
    ivar = 1.0 / sqrtvar
    xhat = xmu * ivar
    out = gamma * xhat + beta
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    divar = np.sum(dxhat * xmu, axis=0)
    dxmu1 = dxhat * ivar
    dsqrtvar = -1.0 / (sqrtvar**2) * divar
    dvar = 0.5 * 1.0 / np.sqrt(var + eps) * dsqrtvar
    dsq = 1.0 / N * np.ones((N, D)) * dvar
    dxmu2 = 2 * xmu * dsq
    dx1 = dxmu1 + dxmu2
    dmu = -1 * np.sum(dxmu1 + dxmu2, axis=0)
    dx2 = 1.0 / N * np.ones((N, D)) * dmu
    return out, dx1 + dx2, dgamma, dbeta


def batchnorm_alt(x, gamma, beta, dout):
    mean, var = x.mean(axis=0), np.var(x, axis=0)
    std = np.sqrt(var + 1e-5)
    xhat = (x - mean) / std
    running = {"mean": 0.9 * np.zeros(x.shape[1], dtype=x.dtype) + 0.1 * mean}
    out = gamma * xhat + beta
    m = dout.shape[0]
    dgamma = (dout * xhat).sum(0)
    dbeta = dout.sum(0)
    dxhat = dout * gamma
    dx = (dxhat - dxhat.sum(axis=0) / m - xhat * (dxhat * xhat).sum(axis=0) / m) / std
    return out, dx, dgamma, dbeta, running["mean"]


def layernorm(x, gamma, beta, dout):
    mu = np.mean(x, axis=1, keepdims=True)
    std = np.std(x, axis=-1, keepdims=True)
    xhat = (x - mu) / std
    out = gamma * xhat + beta
    D = x.shape[1]
    dxhat = dout * gamma
    dx = (
        (1.0 / D)
        / std
        * (D * dxhat - np.sum(dxhat, 1, keepdims=True) - xhat * np.sum(dxhat * xhat, axis=1, keepdims=True))
    )
    return out, dx, (dout * xhat).sum(axis=0), dout.sum(axis=0)


def spatial_batchnorm(x, gamma, beta, dout):
    N, C, H, W = x.shape
    flat = x.transpose(0, 2, 3, 1).reshape(-1, C)
    xhat = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    out = (gamma * xhat + beta).reshape(N, H, W, C).transpose((0, 3, 1, 2))
    dbeta = dout.sum(axis=(0, 2, 3))
    dgamma = np.sum(dout.transpose(0, 2, 3, 1).reshape(-1, C) * xhat, axis=0)
    return out, dgamma, dbeta, gamma[np.newaxis, :, None, None] * dout


def dropout(x, dout, p=0.6):
    mask = (np.random.rand(*x.shape) < p) / p
    out = x * mask
    out = out.astype(x.dtype, copy=False)
    return out, dout * mask


def conv(x, w, b, dout):
    stride, pad = 2, 1
    N, _, H, W = x.shape
    F, _, HH, WW = w.shape
    Hn, Wn = int(1 + (H + 2 * pad - HH) / stride), 1 + (W + 2 * pad - WW) // stride
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "constant")
    out = np.zeros((N, F, Hn, Wn))
    for n in range(N):
        for f in range(F):
            for i in range(Hn):
                for j in range(Wn):
                    window = xp[n, :, i * stride : i * stride + HH, j * stride : j * stride + WW]
                    out[n, f, i, j] = np.sum(window * w[f]) + b[f]
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), np.zeros_like(b)
    for n in range(N):
        for f in range(F):
            db[f] += dout[n, f].sum()
            for i in range(Hn):
                for j in range(Wn):
                    hs, ws = i * stride, j * stride
                    dw[f] += xp[n, :, hs : hs + HH, ws : ws + WW] * dout[n, f, i, j]
                    dxp[n, :, hs : hs + HH, ws : ws + WW] += w[f] * dout[n, f, i, j]
    return out, dxp[:, :, pad:-pad, pad:-pad], dw, db


def conv_im2col(x, w, dout):
    N, C, H, W = x.shape
    F, _, HH, WW = w.shape
    Hn, Wn = H - HH + 1, W - WW + 1
    i0 = np.tile(np.repeat(np.arange(HH), WW), C)
    i1 = np.repeat(np.arange(Hn), Wn)
    j0 = np.tile(np.arange(WW), HH * C)
    j1 = np.tile(np.arange(Wn), Hn)
    i = i0.reshape(-1, 1) + i1.reshape(1, -1)
    j = j0.reshape(-1, 1) + j1.reshape(1, -1)
    k = np.repeat(np.arange(C), HH * WW).reshape(-1, 1)
    cols = x[:, k, i, j].transpose(1, 2, 0).reshape(HH * WW * C, -1)
    out = (w.reshape(F, -1) @ cols).reshape(F, Hn, Wn, N).transpose(3, 0, 1, 2)
    dflat = dout.transpose(1, 2, 3, 0).reshape(F, -1)
    dcols = w.reshape(F, -1).T @ dflat
    dx = np.zeros((N, C, H, W), dtype=dcols.dtype)
    np.add.at(dx, (slice(None), k, i, j), dcols.reshape(C * HH * WW, -1, N).transpose(2, 0, 1))
    return out, dx, (dflat @ cols.T).reshape(w.shape)


def max_pool(x, dout):
    N, C, H, W = x.shape
    out = np.zeros((N, C, H // 2, W // 2))
    dx = np.zeros_like(x)
    for n in range(N):
        for c in range(C):
            for i in range(H // 2):
                for j in range(W // 2):
                    window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                    out[n, c, i, j] = np.max(window)
                    if c == 0:
                        m, k = np.unravel_index(np.argmax(window), window.shape)
                        dx[n, c, 2 * i + m, 2 * j + k] += dout[n, c, i, j]
                    else:
                        mask = window == np.max(window)
                        dx[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = mask * dout[n, c, i, j]
    return out, dx


def softmax_loss(x, y):
    shifted = x - np.max(x, axis=1, keepdims=True)
    Z = np.sum(np.exp(shifted), axis=1, keepdims=True)
    log_probs = shifted - np.log(Z)
    probs = exp(log_probs)
    N = x.shape[0]
    loss = -np.sum(log_probs[np.arange(N), y]) / N
    dx = probs.copy()
    dx[np.arange(N), y] -= 1
    dx /= N
    return loss, dx


def svm_loss(x, y):
    N = x.shape[0]
    correct = x[np.arange(N), y]
    margins = np.maximum(0, x - correct[:, np.newaxis] + 1.0)
    margins[np.arange(N), y] = 0
    loss = np.sum(margins) / N
    num_pos = np.sum(margins > 0, axis=1)
    dx = np.zeros_like(x)
    dx[margins > 0] = 1
    dx[np.arange(N), y] -= num_pos
    dx /= N
    return loss, dx


def svm_loss_naive(W, X, y):
    dW = np.zeros(W.shape)
    loss = 0.0
    for i in range(X.shape[0]):
        scores = X[i].dot(W)
        for j in range(W.shape[1]):
            if j == y[i]:
                continue
            margin = scores[j] - scores[y[i]] + 1
            if margin > 0:
                loss += margin
                dW[:, j] += X[i].T
                dW[:, y[i]] -= X[i]
    loss /= X.shape[0]
    dW /= X.shape[0]
    loss += 0.1 * np.sum(W * W)
    dW += 0.2 * W
    return loss, dW


def rnn(x, h0, Wx, Wh, b, dh):
    N, T, _ = x.shape
    H = h0.shape[1]
    h = np.zeros((N, T, H))
    prev, caches = h0, []
    for t in range(T):
        h[:, t, :] = np.tanh(x[:, t, :].dot(Wx) + np.dot(prev, Wh) + b)
        caches.append((x[:, t], prev, h[:, t]))
        prev = h[:, t, :]
    dx, dWx, dWh, db = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh), np.zeros(H)
    dprev = np.zeros((N, H))
    for t in reversed(range(T)):
        xt, before, now = caches[t]
        da = (1 - now**2) * (dh[:, t, :] + dprev)
        dx[:, t, :] = da @ Wx.T
        dWx += xt.T @ da
        dWh += before.T.dot(da)
        db += da.sum(0)
        dprev = da @ Wh.T
    return h, dx, dprev, dWx, dWh, db


def sigmoid(x):
    pos_mask = x >= 0
    neg_mask = x < 0
    z = np.zeros_like(x)
    z[pos_mask] = np.exp(-x[pos_mask])
    z[neg_mask] = np.exp(x[neg_mask])
    top = np.ones_like(x)
    top[neg_mask] = z[neg_mask]
    return top / (1 + z)


def lstm(x, prev_h, prev_c, Wx, Wh, b, dh, dc):
    a = x @ Wx + prev_h @ Wh + b
    ai, af, ao, ag = np.hsplit(a, 4)
    i, f, o, g = sigmoid(ai), sigmoid(af), sigmoid(ao), np.tanh(ag)
    c = f * prev_c + i * g
    h = o * np.tanh(c)
    dc = dc + dh * o * (1 - np.tanh(c) ** 2)
    da = np.hstack(
        (dc * g * i * (1 - i), dc * prev_c * f * (1 - f), dh * np.tanh(c) * o * (1 - o), dc * i * (1 - g * g))
    )
    return h, c, da.dot(Wx.T), da.dot(Wh.T), dc * f, x.T.dot(da), prev_h.T.dot(da), np.sum(da, axis=0)


def embedding(W, x, dout):
    out = W[x, :]
    dW = np.zeros_like(W)
    np.add.at(dW, x, dout)
    again = np.zeros(W.shape)
    np.subtract.at(again, (x,), -dout)
    return out, dW, again


def attention(q, k, v, dout):
    D = q.shape[-1]
    scores = np.einsum("nid,njd->nij", q, k) / math.sqrt(D)
    w = np.exp(scores - scores.max(axis=-1, keepdims=True))
    w = w / w.sum(axis=-1, keepdims=True)
    out = np.matmul(w, v)
    dw = dout @ v.swapaxes(1, 2)
    ds = w * (dw - (dw * w).sum(-1, keepdims=True)) / np.sqrt(D)
    return out, np.einsum("nij,njd->nid", ds, k), np.transpose(ds, (0, 2, 1)) @ q, w.transpose(0, 2, 1) @ dout


def various(x, y):
    outer = np.outer(x[0], y[0])
    joined = np.concatenate([x, y], axis=0)
    top, bottom = np.split(joined, 2)
    third = np.vstack((x[:1], y[1:])) - np.stack([x[1], y[0]], axis=0)
    clipped = np.clip(x, -0.5, 0.5) + np.where(y > 0, x, 0.0) + np.where(x > 0, 1.0, 0.25)
    first, *_ = [row * 2 for row in x]
    number = x[0, 0]
    number += 1
    back = x[::-1, 1:] + np.flip(y, 0)[:, :0:-1]
    lists = np.array([x[0, 1], 2.0, number]) + np.linalg.norm(y) + np.array([1, 2, 3]) / 2
    parts = x[0, np.array([0, 2])] * np.linspace(0, 1, 2) + np.log(np.arange(1, 3))
    turned = np.sqrt(abs(-x)) // 0.3 + (np.abs(y) % 0.7)
    total = float(np.prod(x.shape)) + len(x)
    return (
        outer,
        top - bottom,
        third,
        clipped,
        first,
        number,
        back,
        lists,
        parts,
        turned,
        x * total,
        np.argmax(x, axis=1),
    )
