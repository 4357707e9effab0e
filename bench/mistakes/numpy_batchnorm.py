"""Batch norm in NumPy with the compact formula for dx."""

import numpy as np
import torch

CHECK = "batchnorm_backward"
KWARGS = "dict(forward=batchnorm_forward, reference=torch_batchnorm)"


def inputs():
    rng = np.random.default_rng(32)
    return 3 * rng.standard_normal((6, 5)) + 2, rng.standard_normal(5), rng.standard_normal(5)


def torch_batchnorm(x, gamma, beta):
    return torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)


def batchnorm_forward(x, gamma, beta):
    mu = x.mean(axis=0)
    var = x.var(axis=0)
    std = np.sqrt(var + 1e-5)
    x_hat = (x - mu) / std
    out = gamma * x_hat + beta
    cache = {"x_hat": x_hat, "gamma": gamma, "std": std, "xc": x - mu}
    # ~ wrong-tensor: cache = {"x_hat": x - mu, "gamma": gamma, "std": std, "xc": x - mu}
    # ~ wrong-tensor|wrong-exponent: cache = {"x_hat": x_hat, "gamma": gamma, "std": var + 1e-5, "xc": x - mu}
    return out, cache


def batchnorm_backward(dout, cache):
    x_hat, gamma, std = cache["x_hat"], cache["gamma"], cache["std"]
    dbeta = dout.sum(axis=0)
    # ~ wrong-scale: dbeta = dout.mean(axis=0)
    # ~ wrong-axis|wrong-shape: dbeta = dout.sum(axis=1)
    dgamma = np.sum(dout * x_hat, axis=0)
    # ~ wrong-tensor|missing-factor|wrong-factor: dgamma = np.sum(dout * cache["xc"], axis=0)
    # ~ missing-factor: dgamma = np.sum(dout, axis=0)
    # ~ missing-broadcast-sum|wrong-shape: dgamma = dout * x_hat
    # = dgamma = np.diag(dout.T @ x_hat)
    dx_hat = dout * gamma
    # ~ missing-factor: dx_hat = dout
    # ~ upstream-dropped: dx_hat = np.ones_like(dout) * gamma
    dx = (dx_hat - dx_hat.mean(axis=0) - x_hat * (dx_hat * x_hat).mean(axis=0)) / std
    # ~ diagonal-jacobian|lost-path|missing-term: dx = dx_hat / std
    # ~ lost-path|missing-term: dx = (dx_hat - dx_hat.mean(axis=0)) / std
    # ~ lost-path|missing-term: dx = (dx_hat - x_hat * (dx_hat * x_hat).mean(axis=0)) / std
    # ~ missing-factor: dx = dx_hat - dx_hat.mean(axis=0) - x_hat * (dx_hat * x_hat).mean(axis=0)
    # ~ wrong-exponent: dx = (dx_hat - dx_hat.mean(axis=0) - x_hat * (dx_hat * x_hat).mean(axis=0)) / std**2
    # ~ wrong-axis: dx = (dx_hat - dx_hat.mean(axis=1, keepdims=True) - x_hat * (dx_hat * x_hat).mean(axis=0)) / std
    # ~ wrong-axis|wrong-term-scale: dx = (dx_hat - dx_hat.mean() - x_hat * (dx_hat * x_hat).mean(axis=0)) / std
    # ~ wrong-scale|wrong-term-scale: dx = (len(dout) * dx_hat - dx_hat.sum(axis=0) - x_hat * (dx_hat * x_hat).sum(axis=0)) / std
    # ~ wrong-scale: dx = (len(dout) * dx_hat - dx_hat.sum(axis=0) - x_hat * (dx_hat * x_hat).sum(axis=0)) / ((len(dout) - 1) * std)
    # ~ wrong-term-scale: dx = (dx_hat - dx_hat.mean(axis=0) + x_hat * (dx_hat * x_hat).mean(axis=0)) / std
    # ~ wrong-tensor|wrong-term-scale: dx = (dx_hat - dx_hat.mean(axis=0) - x_hat * (dout * x_hat).mean(axis=0)) / std
    # = dx = (len(dout) * dx_hat - dx_hat.sum(axis=0) - x_hat * (dx_hat * x_hat).sum(axis=0)) / (len(dout) * std)
    # = dx = gamma / (len(dout) * std) * (len(dout) * dout - dbeta - x_hat * dgamma)
    return dx, dgamma, dbeta
