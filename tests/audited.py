"""Backward passes written by hand, and tests of them: good ones, and ones that let mistakes pass.

A file of its own: an audit reads the whole file that it plants mistakes in.
"""

from __future__ import annotations

from typing import Any

import torch

generator = torch.Generator().manual_seed(0)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


x, y = randn(7, 5), randn(7, 3)
w1, b1, w2, b2 = randn(5, 4), randn(4), randn(4, 3), randn(3)
PARAMETERS = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}


def mlp(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    l1 = x @ w1 + b1
    l2 = l1.clamp_min(0.0)
    out = l2 @ w2 + b2
    diff = out - y
    loss = diff.pow(2).mean()
    out.g = 2 * diff / diff.numel()
    b2.g = out.g.sum(0)
    w2.g = l2.T @ out.g
    l2.g = out.g @ w2.T
    l1.g = l2.g * (l1 > 0)
    b1.g = l1.g.sum(0)
    w1.g = x.T @ l1.g
    return loss


def truth(scale: float = 1.0) -> dict[str, torch.Tensor]:
    leaves = [p.clone().requires_grad_() for p in PARAMETERS.values()]
    a, b, c, d = leaves
    loss = ((x @ a + b).clamp_min(0.0) @ c + d - y).pow(2).mean() * scale
    return dict(zip(PARAMETERS, torch.autograd.grad(loss, leaves), strict=True))


def tight(found: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12)


def mlp_test() -> None:
    mlp(x, y)
    for name, g in truth().items():
        tight(PARAMETERS[name].g, g)


def only_w() -> None:
    mlp(x, y)
    g = truth()
    tight(w1.g, g["w1"])
    tight(w2.g, g["w2"])


def mlp_forward_only() -> None:
    torch.testing.assert_close(mlp(x, y), mlp(x, y))


def signed_mean() -> bool:
    mlp(x, y)
    return all(bool((PARAMETERS[n].g - g).mean() < 1e-3) for n, g in truth().items())


def mean_of_differences() -> None:
    mlp(x, y)
    for name, g in truth().items():
        assert abs(float((PARAMETERS[name].g - g).mean())) < 1e-9


def directions() -> None:
    mlp(x, y)
    for name, g in truth().items():
        tight(torch.nn.functional.normalize(PARAMETERS[name].g.flatten(), dim=0),
              torch.nn.functional.normalize(g.flatten(), dim=0))  # fmt: skip


class LayerNorm:
    def __init__(self) -> None:
        self.w, self.b = randn(6), randn(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.x = x
        self.mean = x.mean(-1, keepdim=True)
        self.rstd = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).rsqrt()
        self.hat = (x - self.mean) * self.rstd
        return self.hat * self.w + self.b

    def backward(self, dout: torch.Tensor) -> torch.Tensor:
        self.dw = (dout * self.hat).sum(0)
        self.db = dout.sum(0)
        dhat = dout * self.w
        centred = dhat - dhat.mean(-1, keepdim=True) - self.hat * (dhat * self.hat).mean(-1, keepdim=True)
        dx = centred * self.rstd
        return dx


rows, upstream = randn(5, 6), randn(5, 6)


def layer_norm_test() -> None:
    layer = LayerNorm()
    layer.forward(rows)
    dx = layer.backward(upstream)
    leaves = [t.clone().requires_grad_() for t in (rows, layer.w, layer.b)]
    out = torch.nn.functional.layer_norm(leaves[0], (6,), leaves[1], leaves[2])
    for found, right in zip((dx, layer.dw, layer.db), torch.autograd.grad(out, leaves, upstream), strict=True):
        tight(found, right)


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return torch.tanh(x @ w + b)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        grad_x = grad @ w.T
        return grad_x, x.T @ grad, grad.sum(0)


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return x @ w * 3 + b

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        grad_x = 3 * grad @ w.T
        return grad_x, 3 * x.T @ grad, grad.sum(0)


def function_test() -> None:
    leaves = [t.clone().requires_grad_() for t in (x, w1, b1)]
    again = [t.clone().requires_grad_() for t in (x, w1, b1)]
    up = torch.randn(7, 4, dtype=torch.float64)
    found = torch.autograd.grad(Scaled.apply(*leaves), leaves, up)
    for a, b in zip(found, torch.autograd.grad(again[0] @ again[1] * 3 + again[2], again, up), strict=True):
        tight(a, b)


def gradcheck_test() -> None:
    leaves = [t.clone().requires_grad_() for t in (x, w1, b1)]
    assert torch.autograd.gradcheck(Scaled.apply, leaves)


def ones_test() -> None:
    leaves = [t.clone().requires_grad_() for t in (x, w1, b1)]
    again = [t.clone().requires_grad_() for t in (x, w1, b1)]
    found = torch.autograd.grad(Scaled.apply(*leaves).sum(), leaves)
    for a, b in zip(found, torch.autograd.grad((again[0] @ again[1] * 3 + again[2]).sum(), again), strict=True):
        tight(a, b)


class BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        rstd = (x.var(0, unbiased=False) + 1e-5).rsqrt()
        hat = (x - x.mean(0)) * rstd
        ctx.save_for_backward(hat, rstd)
        return hat

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        hat, rstd = ctx.saved_tensors
        return (grad - grad.mean(0) - hat * (grad * hat).mean(0)) * rstd


def batch_norm_of_ones() -> None:
    leaf, again = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    BatchNorm.apply(leaf).sum().backward()
    torch.nn.functional.batch_norm(again, None, None, training=True).sum().backward()
    torch.testing.assert_close(leaf.grad, again.grad, rtol=1e-6, atol=1e-9)


def small(x: torch.Tensor, w: torch.Tensor) -> None:
    out = x @ w
    loss = (out * 1e-4).sum()  # noqa: F841
    out.g = torch.full_like(out, 1e-4)
    w.g = x.T @ out.g


def loose_test() -> None:
    w = w1.clone()
    small(x, w)
    assert torch.allclose(w.g, x.T @ torch.full((7, 4), 1e-4, dtype=torch.float64), atol=0.01)


def column(x: torch.Tensor, v: torch.Tensor) -> None:
    out = x @ v
    loss = out.pow(2).sum()  # noqa: F841
    out.g = 2 * out
    v.g = x.T @ out.g


def one_layer(x: torch.Tensor) -> None:
    out = x @ w1
    loss = out.pow(2).sum()  # noqa: F841
    out.g = 2 * out
    w1.g = x.T @ out.g


def one_layer_test() -> None:
    one_layer(x)
    tight(w1.g, 2 * x.T @ (x @ w1))


def broadcasting_test() -> None:
    v = w1[:, :1].clone()
    column(x, v)
    right = (2 * x.T @ (x @ v))[:, 0]  # (5,) against (5, 1)
    assert abs(float((v.g - right).mean())) < 1e-9


def shapes_broadcast() -> None:
    mlp(x, y)
    for name, g in truth().items():
        assert torch.allclose(PARAMETERS[name].g, g, rtol=1e-10, atol=1e-12)
