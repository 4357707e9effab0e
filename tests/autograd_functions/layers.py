"""Right Functions that mix elements: products, norms, losses, look-ups."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Linear(Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x @ w.T + b

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        gx = g @ w if ctx.needs_input_grad[0] else None
        gw = g.T @ x if ctx.needs_input_grad[1] else None
        gb = g.sum(0) if ctx.needs_input_grad[2] else None
        return gx, gw, gb


class LinearSetUp(Function):
    @staticmethod
    def forward(x, w, b):
        return x @ w.T + b

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, w, _ = inputs
        ctx.save_for_backward(x, w)

    backward = staticmethod(Linear.backward)


class Matmul(Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return (g @ b.mT).sum_to_size(a.shape), (a.mT @ g).sum_to_size(b.shape)


class LayerNorm(Function):
    @staticmethod
    def forward(ctx, x, w, b, eps):
        ctx.eps, ctx.bias = eps, b.shape
        ctx.save_for_backward(x, w)
        return F.layer_norm(x, x.shape[-1:], w, b, eps)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.pow(2).mean(-1, keepdim=True) + ctx.eps).rsqrt()
        hat = centred * scale
        gh = g * w
        gx = scale * (gh - gh.mean(-1, keepdim=True) - hat * (gh * hat).mean(-1, keepdim=True))
        return gx, (g * hat).sum_to_size(w.shape), g.sum_to_size(ctx.bias), None


class LayerNormOnce(Function):
    """Saves intermediates, and says that it is differentiable once."""

    @staticmethod
    def forward(ctx, x, w, b, eps):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        scale = (var + eps).rsqrt()
        hat = (x - mean) * scale
        ctx.bias = b.shape
        ctx.save_for_backward(hat, scale, w)
        return hat * w + b

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        hat, scale, w = ctx.saved_tensors
        gh = g * w
        gx = scale * (gh - gh.mean(-1, keepdim=True) - hat * (gh * hat).mean(-1, keepdim=True))
        return gx, (g * hat).sum_to_size(w.shape), g.sum_to_size(ctx.bias), None


class SortNumpy(Function):
    """The tutorial's: a permutation that is not differentiable, numpy inside, differentiable once."""

    @staticmethod
    def forward(x, dim):
        where = np.argsort(x.detach().cpu().numpy(), axis=dim, kind="stable")
        index = torch.from_numpy(where)
        return x.gather(dim, index), index

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index = output
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index)
        ctx.shape, ctx.dim = inputs[0].shape, inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, g, _):
        (index,) = ctx.saved_tensors
        return g.new_zeros(ctx.shape).scatter(ctx.dim, index, g), None


class CrossEntropy(Function):
    @staticmethod
    def forward(ctx, logits, target):
        ctx.save_for_backward(logits, target)
        return F.cross_entropy(logits, target)

    @staticmethod
    def backward(ctx, g):
        logits, target = ctx.saved_tensors
        p = logits.softmax(-1)
        return g * (p - F.one_hot(target, logits.shape[-1])) / max(len(target), 1), None


class Embedding(Function):
    @staticmethod
    def forward(ctx, tokens, weight):
        ctx.save_for_backward(tokens)
        ctx.rows = weight.shape[0]
        return weight[tokens]

    @staticmethod
    def backward(ctx, g):
        (tokens,) = ctx.saved_tensors
        out = g.new_zeros(ctx.rows, g.shape[-1])
        return None, out.index_add(0, tokens.reshape(-1), g.reshape(-1, g.shape[-1]))


class Attention(Function):
    @staticmethod
    def forward(ctx, q, k, v, scale):
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return (q @ k.mT * scale).softmax(-1) @ v

    @staticmethod
    def backward(ctx, g):
        q, k, v = ctx.saved_tensors
        p = (q @ k.mT * ctx.scale).softmax(-1)
        gp = g @ v.mT
        gs = p * (gp - (gp * p).sum(-1, keepdim=True)) * ctx.scale
        return gs @ k, gs.mT @ q, p.mT @ g, None


class BatchNorm(Function):
    """Updates its running mean in place, which no gradient reads."""

    @staticmethod
    def forward(ctx, x, w, running):
        running.mul_(0.9).add_(0.1 * x.mean(0))
        ctx.save_for_backward(x, w)
        return (x - x.mean(0)) * (x.var(0, unbiased=False) + 1e-5).rsqrt() * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        scale = (x.var(0, unbiased=False) + 1e-5).rsqrt()
        hat = (x - x.mean(0)) * scale
        gh = g * w
        return scale * (gh - gh.mean(0) - hat * (gh * hat).mean(0)), (g * hat).sum_to_size(w.shape), None


class NoTarget(Function):
    """A loss without a gradient of its target, of floating numbers."""

    @staticmethod
    def forward(ctx, x, target):
        ctx.save_for_backward(x, target)
        return ((x - target) ** 2).sum()

    @staticmethod
    def backward(ctx, g):
        x, target = ctx.saved_tensors
        return (2 * g * (x - target)).sum_to_size(x.shape), None


class CholeskyLower(Function):
    @staticmethod
    def forward(ctx, a):
        factor = torch.linalg.cholesky(a)
        ctx.save_for_backward(a)
        return factor

    @staticmethod
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        factor = torch.linalg.cholesky(a)
        phi = (factor.mT @ g).tril()
        phi = phi - torch.diag_embed(phi.diagonal(dim1=-2, dim2=-1)) / 2
        s = torch.linalg.solve_triangular(factor.mT, phi, upper=True)
        s = torch.linalg.solve_triangular(factor, s, upper=False, left=False)
        return (s + s.mT) / 2


class MeanSquare(Function):
    """Right for two arguments of one shape; it divides by the size of a, which another call might stretch."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return ((a - b) ** 2).mean()

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        d = 2 * g * (a - b) / a.numel()
        return d.sum_to_size(a.shape), -d.sum_to_size(b.shape)
