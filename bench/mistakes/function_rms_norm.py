"""RMS norm as a torch.autograd.Function that keeps its input and the reciprocal root."""

import torch
from torch.autograd.function import once_differentiable

CHECK = "rms_norm"


def inputs():
    torch.manual_seed(22)
    return torch.randn(6, 5, requires_grad=True), torch.randn(5, requires_grad=True)


class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, g):
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        ctx.save_for_backward(x, g, r)
        # ~ wrong-tensor|double-applied|wrong-factor: ctx.save_for_backward(x * r, g, r)
        ctx.dim = x.shape[-1]
        # ~ wrong-axis|wrong-scale|wrong-term-scale: ctx.dim = x.shape[0]
        # ~ wrong-scale|wrong-term-scale: ctx.dim = x.numel()
        return x * r * g

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, g, r = ctx.saved_tensors
        dg = (dy * x * r).sum(0)
        # ~ missing-factor: dg = (dy * x).sum(0)
        # ~ wrong-exponent: dg = (dy * x * r**2).sum(0)
        # ~ wrong-axis|wrong-scale: dg = (dy * x * r).mean(0)
        # ~ contract: dg = torch.stack([dy[i] * x[i] * r[i] for i in range(len(dy))]).sum(0)
        # = dg = torch.einsum("nd,nd,no->d", dy, x, r)
        u = dy * g
        # ~ missing-factor: u = dy
        # ~ upstream-dropped: u = g.expand_as(dy)
        dot = (u * x).sum(-1, keepdim=True)
        # ~ wrong-axis: dot = (u * x).sum(0, keepdim=True)
        # ~ wrong-axis|missing-broadcast-sum|diagonal-jacobian: dot = u * x
        # ~ wrong-tensor|missing-factor: dot = (dy * x).sum(-1, keepdim=True)
        # = dot = torch.linalg.vecdot(u, x).unsqueeze(-1)
        dx = r * u - x * r**3 * dot / ctx.dim
        # ~ lost-path|missing-term: dx = r * u
        # ~ wrong-exponent|wrong-term-scale: dx = r * u - x * r**2 * dot / ctx.dim
        # ~ wrong-term-scale: dx = r * u + x * r**3 * dot / ctx.dim
        # ~ wrong-term-scale: dx = r * u - x * r**3 * dot
        # ~ wrong-term-scale: dx = r * u - 2 * x * r**3 * dot / ctx.dim
        # ~ wrong-factor|wrong-term-scale: dx = u / r - x * r**3 * dot / ctx.dim
        # = dx = r * (u - x * r * r * dot / ctx.dim)
        return dx, dg


def rms_norm(x, g):
    return RMSNorm.apply(x, g)
