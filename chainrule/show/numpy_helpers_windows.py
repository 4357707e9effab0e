"""The windows of convolutions and pooling: functions that emitted code brings with it, as in `numpy_helpers`."""

from __future__ import annotations

import math

import numpy as np

# mypy: disable-error-code="no-untyped-def, no-untyped-call, arg-type"


def windows(shape, kernel, stride, dilation):
    """x[windows(x.shape, ...)] has the axes (batch, channels, *out, *kernel)."""
    n, at = len(kernel), [slice(None), slice(None)]
    for axis, (size, k, s, d) in enumerate(zip(shape[2:], kernel, stride, dilation)):
        starts = s * np.arange((size - d * (k - 1) - 1) // s + 1)
        places = [1] * (2 * n)
        places[axis], places[n + axis] = len(starts), k
        at.append((starts[:, None] + d * np.arange(k)).reshape(places))
    return tuple(at)


def margins(padding):
    return ((0, 0), (0, 0), *((p, p) for p in padding))


def from_windows(patches, shape, kernel, stride, padding, dilation):
    """Every window added to where it was taken from."""
    larger = (s + 2 * p for s, p in zip(shape[2:], padding))
    padded = np.zeros((*shape[:2], *larger), patches.dtype)
    np.add.at(padded, windows(padded.shape, kernel, stride, dilation), patches)
    return padded[(..., *(slice(p, p + s) for s, p in zip(shape[2:], padding)))]


def grouped(x, w_shape, groups, **how):
    """The windows of x with a group axis: (batch, groups, channels, *out, *kernel)."""
    x = np.pad(x, margins(how["padding"]))
    patches = x[windows(x.shape, w_shape[2:], how["stride"], how["dilation"])]
    return patches.reshape(len(x), groups, w_shape[1], *patches.shape[2:])


def conv(x, w, groups, **how):
    patches = grouped(x, w.shape, groups, **how)
    w = w.reshape(groups, -1, *w.shape[1:])
    at, of = "xyz"[: x.ndim - 2], "ijk"[: x.ndim - 2]
    out = np.einsum(f"bgc{at}{of},goc{of}->bgo{at}", patches, w)
    return out.reshape(len(x), -1, *out.shape[3:])


def conv_weight(x, w_shape, out_g, groups, **how):
    """The gradient of the weight of a convolution."""
    patches = grouped(x, w_shape, groups, **how)
    out_g = out_g.reshape(len(x), groups, -1, *out_g.shape[2:])
    at, of = "xyz"[: x.ndim - 2], "ijk"[: x.ndim - 2]
    w_g = np.einsum(f"bgc{at}{of},bgo{at}->goc{of}", patches, out_g)
    return w_g.reshape(w_shape)


def conv_input(x_shape, w, out_g, groups, **how):
    """The gradient of the input of a convolution."""
    kernel, at, of = w.shape[2:], "xyz"[: w.ndim - 2], "ijk"[: w.ndim - 2]
    w = w.reshape(groups, -1, *w.shape[1:])
    out_g = out_g.reshape(len(out_g), groups, -1, *out_g.shape[2:])
    patches = np.einsum(f"goc{of},bgo{at}->bgc{at}{of}", w, out_g)
    patches = patches.reshape(len(out_g), -1, *patches.shape[3:])
    return from_windows(patches, x_shape, kernel, **how)


def max_pool(x, kernel, stride, padding, dilation):
    """The largest of each window, and where it stands in its image."""
    n = len(kernel)
    places = np.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:])
    x = np.pad(x, margins(padding), constant_values=-np.inf)
    at = windows(x.shape, kernel, stride, dilation)
    patches, places = x[at], np.pad(places, margins(padding))[at]
    places = np.broadcast_to(places, patches.shape).reshape(*patches.shape[:-n], -1)
    patches = patches.reshape(places.shape)
    best = patches.argmax(axis=-1)[..., None]
    picked = (np.take_along_axis(a, best, axis=-1)[..., 0] for a in (patches, places))
    return tuple(picked)


def avg_pool(x, kernel, stride, padding):
    x = np.pad(x, margins(padding))
    n = len(kernel)
    patches = x[windows(x.shape, kernel, stride, (1,) * n)]
    return patches.mean(axis=tuple(range(-n, 0)))


def avg_pool_backward(out_g, x_shape, kernel, stride, padding):
    """The gradient of the input of avg_pool."""
    n = len(kernel)
    each = out_g[(..., *[None] * n)] / math.prod(kernel)
    patches = np.broadcast_to(each, (*out_g.shape, *kernel))
    return from_windows(patches, x_shape, kernel, stride, padding, (1,) * n)


def unfold(x, kernel, dilation, padding, stride):
    """The windows of x, one a column."""
    n, x = len(kernel), np.pad(x, margins(padding))
    patches = x[windows(x.shape, kernel, stride, dilation)]
    patches = np.moveaxis(patches, tuple(range(-n, 0)), tuple(range(2, 2 + n)))
    return patches.reshape(len(x), math.prod(patches.shape[1 : 2 + n]), -1)


def fold(columns, size, kernel, dilation, padding, stride):
    """Each column of windows added to where it was taken from."""
    n = len(kernel)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    sizes = zip(size, reach, padding, stride)
    out = ((s + 2 * p - r) // step + 1 for s, r, p, step in sizes)
    patches = columns.reshape(len(columns), -1, *kernel, *out)
    patches = np.moveaxis(patches, tuple(range(2, 2 + n)), tuple(range(-n, 0)))
    shape = (*patches.shape[:2], *size)
    return from_windows(patches, shape, kernel, stride, padding, dilation)
