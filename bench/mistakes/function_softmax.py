"""Softmax along a chosen axis, with a temperature, as a torch.autograd.Function."""

import torch

CHECK = "program"


def inputs():
    torch.manual_seed(24)
    return (torch.randn(4, 5, 3, requires_grad=True),)


class Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dim, temperature):
        e = torch.exp((x - x.amax(dim, keepdim=True)) / temperature)
        p = e / e.sum(dim, keepdim=True)
        ctx.dim = dim
        # ~ wrong-axis: ctx.dim = -1
        ctx.temperature = temperature
        # ~ wrong-scale: ctx.temperature = 1.0
        ctx.save_for_backward(p)
        # ~ wrong-tensor|missing-factor: ctx.save_for_backward(e)
        return p

    @staticmethod
    def backward(ctx, dp):
        (p,) = ctx.saved_tensors
        inner = (dp * p).sum(ctx.dim, keepdim=True)
        # ~ wrong-axis: inner = (dp * p).sum(0, keepdim=True)
        # ~ wrong-axis|wrong-scale|wrong-term-scale: inner = (dp * p).mean(ctx.dim, keepdim=True)
        # ~ diagonal-jacobian|missing-broadcast-sum: inner = dp * p
        # ~ missing-factor|wrong-tensor: inner = dp.sum(ctx.dim, keepdim=True)
        # ~ inplace-corruption|contract: inner = dp.mul_(p).sum(ctx.dim, keepdim=True) ;; dp = dp / p
        # = inner = torch.einsum("abc,abc->ac", dp, p)[:, None]
        dx = p * (dp - inner)
        # ~ diagonal-jacobian|missing-term: dx = p * (1 - p) * dp
        # ~ missing-term|lost-path: dx = p * dp
        # ~ missing-factor: dx = dp - inner
        # ~ wrong-term-scale: dx = p * (dp + inner)
        # ~ sign: dx = p * (inner - dp)
        # ~ wrong-exponent|double-applied: dx = p**2 * (dp - inner)
        # ~ upstream-dropped|diagonal-jacobian: dx = p * (1 - p)
        # = dx = p * dp - p * inner
        return dx / ctx.temperature, None, None
        # ~ missing-factor|wrong-scale: return dx, None, None
        # ~ wrong-exponent|double-applied|wrong-scale: return dx / ctx.temperature**2, None, None
        # ~ wrong-factor|wrong-scale: return dx * ctx.temperature, None, None


def program(x):
    return Softmax.apply(x, 1, 2.5)
