"""A convolution by naive loops in NumPy, with padding and stride."""

import numpy as np
import torch

CHECK = "conv_backward_naive"
KWARGS = "dict(forward=conv_forward_naive, reference=torch_conv)"
STRIDE, PAD = 2, 1


def inputs():
    rng = np.random.default_rng(35)
    return rng.standard_normal((2, 2, 5, 3)), rng.standard_normal((3, 2, 3, 3)), rng.standard_normal(3)


def torch_conv(x, w, b):
    return torch.nn.functional.conv2d(x, w, b, stride=STRIDE, padding=PAD)


def conv_forward_naive(x, w, b):
    N, _C, H, W = x.shape
    F, _, HH, WW = w.shape
    H_out, W_out = 1 + (H + 2 * PAD - HH) // STRIDE, 1 + (W + 2 * PAD - WW) // STRIDE
    xp = np.pad(x, ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD)))
    out = np.zeros((N, F, H_out, W_out))
    for n in range(N):
        for f in range(F):
            for i in range(H_out):
                for j in range(W_out):
                    window = xp[n, :, i * STRIDE : i * STRIDE + HH, j * STRIDE : j * STRIDE + WW]
                    out[n, f, i, j] = np.sum(window * w[f]) + b[f]
    return out, (xp, w, b)


def conv_backward_naive(dout, cache):
    xp, w, b = cache
    N, F, H_out, W_out = dout.shape
    HH, WW = w.shape[2:]
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), np.zeros_like(b)
    for n in range(N):
        for f in range(F):
            db[f] += dout[n, f].sum()
            # ~ overwritten-not-accumulated|lost-path: db[f] = dout[n, f].sum()
            # ~ wrong-scale|wrong-axis: db[f] += dout[n, f].mean()
            # ~ missing-gradient:
            for i in range(H_out):
                for j in range(W_out):
                    hs, ws = i * STRIDE, j * STRIDE
                    dw[f] += dout[n, f, i, j] * xp[n, :, hs : hs + HH, ws : ws + WW]
                    # ~ overwritten-not-accumulated|lost-path: dw[f] = dout[n, f, i, j] * xp[n, :, hs : hs + HH, ws : ws + WW]
                    # ~ wrong-axis|wrong-tensor: dw[f] += dout[n, f, i, j] * xp[n, :, i : i + HH, j : j + WW]
                    # ~ upstream-dropped: dw[f] += xp[n, :, hs : hs + HH, ws : ws + WW]
                    # ~ wrong-scale: dw[f] += dout[n, f, i, j] * xp[n, :, hs : hs + HH, ws : ws + WW] / N
                    dxp[n, :, hs : hs + HH, ws : ws + WW] += dout[n, f, i, j] * w[f]
                    # ~ overwritten-not-accumulated|index-overwrite|lost-path: dxp[n, :, hs : hs + HH, ws : ws + WW] = dout[n, f, i, j] * w[f]
                    # ~ upstream-dropped: dxp[n, :, hs : hs + HH, ws : ws + WW] += w[f]
                    # ~ missing-factor: dxp[n, :, hs : hs + HH, ws : ws + WW] += dout[n, f, i, j]
                    # ~ sign: dxp[n, :, hs : hs + HH, ws : ws + WW] -= dout[n, f, i, j] * w[f]
                    # ~ wrong-axis|transposed|wrong-tensor: dxp[n, :, hs : hs + HH, ws : ws + WW] += dout[n, f, i, j] * w[f, :, ::-1, ::-1]
    dx = dxp[:, :, PAD:-PAD, PAD:-PAD]
    # ~ wrong-shape: dx = dxp
    # ~ wrong-axis|wrong-mask|wrong-tensor: dx = dxp[:, :, : -2 * PAD, : -2 * PAD]
    # = dx = np.roll(dxp, (-PAD, -PAD), axis=(2, 3))[:, :, : -2 * PAD, : -2 * PAD]
    return dx, dw, db
