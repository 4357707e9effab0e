"""GELU in its tanh form as a torch.autograd.Function."""

import math

import torch
from torch.autograd.function import once_differentiable

CHECK = "gelu"
K = math.sqrt(2 / math.pi)


def inputs():
    torch.manual_seed(23)
    return (torch.randn(7, 3, requires_grad=True),)


class GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        inner = K * (x + 0.044715 * x**3)
        t = torch.tanh(inner)
        ctx.save_for_backward(x, t)
        # ~ wrong-tensor: ctx.save_for_backward(x, inner)
        # ~ wrong-tensor: ctx.save_for_backward(inner, t)
        return 0.5 * x * (1 + t)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, t = ctx.saved_tensors
        left = 0.5 * (1 + t)
        # ~ wrong-scale|wrong-term-scale: left = 1 + t
        # ~ wrong-factor|wrong-term-scale: left = 0.5 * (1 - t)
        dt = 1 - t**2
        # ~ wrong-exponent|wrong-factor: dt = 1 - t
        # ~ double-applied|wrong-tensor: dt = 1 - torch.tanh(t) ** 2
        # ~ wrong-factor: dt = t * (1 - t)
        # = dt = (1 - t) * (1 + t)
        dinner = K * (1 + 3 * 0.044715 * x**2)
        # ~ wrong-exponent|wrong-scale|wrong-term-scale: dinner = K * (1 + 0.044715 * x**2)
        # ~ missing-factor|wrong-scale: dinner = 1 + 3 * 0.044715 * x**2
        # ~ missing-term: dinner = K
        # ~ wrong-exponent: dinner = K * (1 + 3 * 0.044715 * x**3)
        # = dinner = K + 0.134145 * K * x * x
        right = 0.5 * x * dt * dinner
        # ~ missing-factor|wrong-term-scale: right = 0.5 * dt * dinner
        # ~ wrong-scale|wrong-term-scale: right = x * dt * dinner
        # ~ missing-factor: right = 0.5 * x * dinner
        return grad * (left + right)
        # ~ lost-path|missing-term: return grad * left
        # ~ upstream-dropped: return left + right
        # ~ wrong-term-scale|sign: return grad * (left - right)
        # ~ wrong-term-scale|upstream-dropped|missing-factor: return grad * left + right
        # ~ inplace-corruption|contract: return grad.mul_(left + right)
        # ~ contract: return (grad.view(-1) * (left + right).view(-1)).view_as(x)
        # = return grad * left + grad * right


def gelu(x):
    return GELU.apply(x)
