"""SwiGLU, silu(x w) * (x v), as a torch.autograd.Function that recomputes its gate."""

import torch

CHECK = "ffn"


def inputs():
    torch.manual_seed(26)
    return (
        torch.randn(6, 5, requires_grad=True),
        torch.randn(5, 4, requires_grad=True),
        torch.randn(5, 4, requires_grad=True),
    )


class SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, v):
        ctx.save_for_backward(x, w, v)
        # ~ wrong-tensor: ctx.save_for_backward(x, v, w)
        return torch.nn.functional.silu(x @ w) * (x @ v)

    @staticmethod
    def backward(ctx, g):
        x, w, v = ctx.saved_tensors
        a, b = x @ w, x @ v
        # ~ wrong-tensor: a, b = x @ v, x @ w
        # ~ missing-factor|wrong-tensor: a, b = torch.nn.functional.silu(x @ w), x @ v
        s = torch.sigmoid(a)
        # ~ wrong-tensor|wrong-factor: s = torch.sigmoid(b)
        # ~ wrong-factor|wrong-tensor: s = torch.tanh(a)
        silu = a * s
        # ~ missing-factor: silu = s
        db = g * silu
        # ~ wrong-tensor|missing-factor: db = g * a
        # ~ upstream-dropped: db = silu
        ds = g * b
        # ~ missing-factor: ds = g
        # ~ wrong-tensor|wrong-factor: ds = g * a
        da = ds * (s + silu * (1 - s))
        # ~ missing-term|lost-path|missing-factor: da = ds * s
        # ~ missing-term|lost-path: da = ds * silu * (1 - s)
        # ~ missing-factor|wrong-term-scale|wrong-factor|wrong-tensor: da = ds * (s + s * (1 - s))
        # ~ wrong-term-scale: da = ds * (s - silu * (1 - s))
        # ~ wrong-exponent|wrong-term-scale: da = ds * (s + silu * (1 - s) ** 2)
        # = da = ds * s * (1 + a * (1 - s))
        # = da = ds * (s + silu - silu * s)
        dx = da @ w.T + db @ v.T
        # ~ lost-path: dx = da @ w.T
        # ~ lost-path: dx = db @ v.T
        # ~ wrong-tensor: dx = da @ v.T + db @ w.T
        # ~ double-counted-path: dx = da @ w.T + 2 * (db @ v.T)
        # ~ wrong-term-scale: dx = da @ w.T - db @ v.T
        # ~ overwritten-not-accumulated|lost-path: dx = da @ w.T ;; dx = db @ v.T
        # = dx = torch.cat([da, db], 1) @ torch.cat([w, v], 1).T
        dw = x.T @ da
        # ~ transposed|wrong-shape: dw = da.T @ x
        # ~ wrong-tensor|missing-factor: dw = x.T @ ds
        dv = x.T @ db
        # ~ wrong-tensor: dv = x.T @ da
        # ~ missing-gradient: dv = None
        return dx, dw, dv
        # ~ wrong-tensor: return dx, dv, dw


def ffn(x, w, v):
    return SwiGLU.apply(x, w, v)
