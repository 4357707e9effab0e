"""A scaled residual, x + scale * dropout(f), with a saved mask, as a torch.autograd.Function."""

import torch
from torch.autograd.function import once_differentiable

CHECK = "residual"


def inputs():
    torch.manual_seed(27)
    keep = torch.rand(6, 5) < 0.7
    return (
        torch.randn(6, 5, requires_grad=True),
        torch.randn(6, 5, requires_grad=True),
        torch.randn(5, requires_grad=True),
        keep,
    )


class ScaledResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, f, scale, keep):
        dropped = f * keep / 0.7
        ctx.mark = keep
        # ~ wrong-mask: ctx.mark = ~keep
        ctx.save_for_backward(dropped, scale)
        # ~ wrong-tensor|missing-factor: ctx.save_for_backward(f, scale)
        ctx.p = 0.3
        # ~ wrong-factor|wrong-scale: ctx.p = 0.7
        return x + scale * dropped

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        dropped, scale = ctx.saved_tensors
        dx = df = dscale = None
        if ctx.needs_input_grad[0]:
            dx = dy
            # ~ missing-gradient: dx = None
            # ~ wrong-scale|double-applied|wrong-factor: dx = dy * scale
            # ~ sign: dx = -dy
            # ~ double-counted-path|wrong-scale: dx = dy + dy
            # = dx = dy.clone()
        if ctx.needs_input_grad[1]:
            df = dy * scale * ctx.mark / (1 - ctx.p)
            # ~ missing-factor|wrong-mask: df = dy * scale / (1 - ctx.p)
            # ~ missing-factor|wrong-scale: df = dy * scale * ctx.mark
            # ~ missing-factor: df = dy * ctx.mark / (1 - ctx.p)
            # ~ double-applied|wrong-scale: df = dy * scale * ctx.mark / (1 - ctx.p) ** 2
            # ~ upstream-dropped: df = scale * ctx.mark / (1 - ctx.p)
            # ~ wrong-mask: df = dy * scale * (dy > 0) / (1 - ctx.p)
            # = df = (dy * scale).masked_fill(~ctx.mark, 0.0) / (1 - ctx.p)
        if ctx.needs_input_grad[2]:
            dscale = (dy * dropped).sum(0)
            # ~ wrong-axis|wrong-shape: dscale = (dy * dropped).sum(1)
            # ~ wrong-axis|wrong-scale: dscale = (dy * dropped).mean(0)
            # ~ double-applied|wrong-scale|missing-factor: dscale = (dy * dropped / 0.7).sum(0)
            # ~ inplace-corruption|contract: dscale = dropped.mul_(dy).sum(0)
            # = dscale = torch.diagonal(dy.T @ dropped)
        return dx, df, dscale, None


def residual(x, f, scale, keep):
    return ScaledResidual.apply(x, f, scale, keep)
