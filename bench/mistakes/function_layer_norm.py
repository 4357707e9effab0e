"""Layer norm over the last axis as a torch.autograd.Function."""

import torch
from torch.autograd.function import once_differentiable

CHECK = "layer_norm"


def inputs():
    torch.manual_seed(21)
    return (
        torch.randn(2, 3, 5, requires_grad=True),
        torch.randn(5, requires_grad=True),
        torch.randn(5, requires_grad=True),
    )


class LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        rstd = (centred.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
        normed = centred * rstd
        ctx.save_for_backward(normed, rstd, weight)
        # ~ wrong-tensor|missing-factor|wrong-factor: ctx.save_for_backward(centred, rstd, weight)
        # ~ wrong-tensor: ctx.save_for_backward(x, rstd, weight)
        # ~ wrong-tensor: ctx.save_for_backward(normed, rstd, bias)
        return normed * weight + bias

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        normed, rstd, weight = ctx.saved_tensors
        dbias = dout.sum((0, 1))
        # ~ wrong-axis|wrong-scale: dbias = dout.mean((0, 1))
        # = dbias = dout.flatten(0, -2).sum(0)
        dweight = (dout * normed).sum((0, 1))
        # ~ missing-factor: dweight = dout.sum((0, 1))
        # ~ contract: dweight = (dout.view(-1, 5) * normed.view(-1, 5)).sum(0)
        # ~ upstream-dropped: dweight = normed.sum((0, 1))
        # = dweight = torch.einsum("bti,bti->i", dout, normed)
        dnormed = dout * weight
        # ~ missing-factor: dnormed = dout
        # ~ inplace-corruption|contract: dnormed = dout.mul_(weight)
        dx = rstd * (dnormed - dnormed.mean(-1, keepdim=True) - normed * (dnormed * normed).mean(-1, keepdim=True))
        # ~ diagonal-jacobian|lost-path|missing-term: dx = rstd * dnormed
        # ~ lost-path|missing-term: dx = rstd * (dnormed - dnormed.mean(-1, keepdim=True))
        # ~ lost-path|missing-term: dx = rstd * (dnormed - normed * (dnormed * normed).mean(-1, keepdim=True))
        # ~ wrong-axis|wrong-term-scale: dx = rstd * (dnormed - dnormed.mean(0, keepdim=True) - normed * (dnormed * normed).mean(-1, keepdim=True))
        # ~ wrong-axis|wrong-scale|wrong-term-scale: dx = rstd * (dnormed - dnormed.sum(-1, keepdim=True) - normed * (dnormed * normed).sum(-1, keepdim=True))
        # ~ wrong-term-scale: dx = rstd * (dnormed - dnormed.mean(-1, keepdim=True) + normed * (dnormed * normed).mean(-1, keepdim=True))
        # ~ missing-factor: dx = dnormed - dnormed.mean(-1, keepdim=True) - normed * (dnormed * normed).mean(-1, keepdim=True)
        # ~ wrong-exponent: dx = rstd**2 * (dnormed - dnormed.mean(-1, keepdim=True) - normed * (dnormed * normed).mean(-1, keepdim=True))
        # ~ wrong-term-scale|wrong-exponent|wrong-factor: dx = rstd * (dnormed - dnormed.mean(-1, keepdim=True) - normed * (dnormed * normed).sum(-1, keepdim=True))
        # = n = normed.shape[-1] ;; dx = rstd / n * (n * dnormed - dnormed.sum(-1, keepdim=True) - normed * (dnormed * normed).sum(-1, keepdim=True))
        return dx, dweight, dbias, None


def layer_norm(x, weight, bias):
    return LayerNorm.apply(x, weight, bias, 1e-5)
