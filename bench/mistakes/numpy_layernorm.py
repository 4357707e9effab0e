"""Layer norm in NumPy by the chain through variance and mean."""

import numpy as np
import torch

CHECK = "layernorm_backward"
KWARGS = "dict(forward=layernorm_forward, reference=torch_layernorm)"


def inputs():
    rng = np.random.default_rng(33)
    return rng.standard_normal((6, 5)), rng.standard_normal(5), rng.standard_normal(5)


def torch_layernorm(x, gamma, beta):
    return torch.nn.functional.layer_norm(x, x.shape[1:], gamma, beta, eps=1e-5)


def layernorm_forward(x, gamma, beta):
    mu = np.mean(x, axis=1, keepdims=True)
    var = np.mean((x - mu) ** 2, axis=1, keepdims=True)
    ivar = 1 / np.sqrt(var + 1e-5)
    xn = (x - mu) * ivar
    return gamma * xn + beta, (x, mu, ivar, xn, gamma)


def layernorm_backward(dout, cache):
    x, mu, ivar, xn, gamma = cache
    _N, D = dout.shape
    # ~ wrong-axis|wrong-scale|wrong-term-scale: D, _N = dout.shape
    dgamma = (dout * xn).sum(0)
    # ~ wrong-tensor|wrong-factor: dgamma = (dout * x).sum(0)
    # ~ wrong-axis|wrong-shape: dgamma = (dout * xn).sum(1)
    dbeta = dout.sum(0)
    # ~ missing-gradient: dbeta = np.zeros_like(gamma)
    dxn = dout * gamma
    # ~ missing-factor: dxn = dout
    dvar = np.sum(dxn * (x - mu), axis=1, keepdims=True) * -0.5 * ivar**3
    # ~ wrong-exponent: dvar = np.sum(dxn * (x - mu), axis=1, keepdims=True) * -0.5 * ivar**2
    # ~ sign: dvar = np.sum(dxn * (x - mu), axis=1, keepdims=True) * 0.5 * ivar**3
    # ~ wrong-scale: dvar = -np.sum(dxn * (x - mu), axis=1, keepdims=True) * ivar**3
    # ~ wrong-tensor|wrong-factor|wrong-exponent: dvar = np.sum(dxn * xn, axis=1, keepdims=True) * -0.5 * ivar**3
    # ~ wrong-axis: dvar = np.sum(dxn * (x - mu), axis=0, keepdims=True) * -0.5 * ivar.mean() ** 3
    # = dvar = -np.einsum("nd,nd->n", dxn, xn)[:, None] * ivar * ivar / 2
    dmu = -np.sum(dxn * ivar, axis=1, keepdims=True)
    # ~ sign: dmu = np.sum(dxn * ivar, axis=1, keepdims=True)
    # ~ missing-factor: dmu = -np.sum(dxn, axis=1, keepdims=True)
    # = dmu = -ivar * dxn.sum(1, keepdims=True) + dvar * np.mean(-2 * (x - mu), axis=1, keepdims=True)
    dx = dxn * ivar + dvar * 2 * (x - mu) / D + dmu / D
    # ~ lost-path|missing-term: dx = dxn * ivar + dvar * 2 * (x - mu) / D
    # ~ lost-path|missing-term: dx = dxn * ivar + dmu / D
    # ~ diagonal-jacobian|lost-path|missing-term: dx = dxn * ivar
    # ~ wrong-term-scale: dx = dxn * ivar + dvar * (x - mu) / D + dmu / D
    # ~ wrong-term-scale: dx = dxn * ivar + dvar * 2 * (x - mu) / D + dmu
    # ~ wrong-term-scale: dx = dxn * ivar + dvar * 2 * (x - mu) / (D - 1) + dmu / D
    # ~ double-counted-path|wrong-term-scale: dx = dxn * ivar + dvar * 2 * (x - mu) / D + dmu / D + dmu / D
    # = dx = dxn * ivar ;; dx += dvar * 2 * (x - mu) / D ;; dx += dmu / D
    return dx, dgamma, dbeta
