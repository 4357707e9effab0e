"""Leaky relu in NumPy with its slope in the cache."""

import numpy as np
import torch

CHECK = "leaky_relu_backward"
KWARGS = "dict(forward=leaky_relu_forward, reference=torch_leaky_relu)"


def inputs():
    return (np.random.default_rng(31).standard_normal((7, 4)),)


def torch_leaky_relu(x):
    return torch.nn.functional.leaky_relu(x, 0.1)


def leaky_relu_forward(x):
    slope = 0.1
    out = np.where(x > 0, x, slope * x)
    return out, (x, slope)


def leaky_relu_backward(dout, cache):
    x, slope = cache
    dx = dout.copy()
    # ~ upstream-dropped: dx = np.ones_like(x)
    # ~ upstream-dropped|wrong-tensor: dx = x.copy()
    # ~ sign: dx = -dout
    dx[x <= 0] *= slope
    # ~ missing-factor:
    # ~ wrong-mask: dx[x > 0] *= slope
    # ~ wrong-mask|wrong-tensor: dx[dout <= 0] *= slope
    # ~ wrong-factor: dx[x <= 0] = 0
    # ~ overwritten-not-accumulated|upstream-dropped: dx[x <= 0] = slope
    # ~ double-applied|wrong-exponent: dx[x <= 0] *= slope**2
    # = dx = dx * np.where(x > 0, 1.0, slope)
    # = dx *= slope + (1 - slope) * (x > 0)
    return dx
