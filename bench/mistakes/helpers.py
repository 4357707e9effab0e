"""The same network by helper functions, each leaving gradients on its arguments."""

import torch
from torch import Tensor

CHECK = "forward_and_backward"


def inputs():
    torch.manual_seed(3)
    x, y = torch.randn(6, 5), torch.randn(6, 1)
    return x, y, torch.randn(5, 4) * 0.6, torch.randn(4) * 0.1, torch.randn(4, 1) * 0.5, torch.randn(1)


def lin(inp: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return inp @ w + b


def relu(inp: Tensor) -> Tensor:
    return inp.clamp(min=0.0)


def mse(output: Tensor, targ: Tensor) -> Tensor:
    return (output - targ).pow(2).mean()


def lin_grad(inp: Tensor, out: Tensor, w: Tensor, b: Tensor) -> None:
    inp.g = out.g @ w.t()
    # ~ wrong-scale: inp.g = 2 * (out.g @ w.t())
    # ~ sign: inp.g = -(out.g @ w.t())
    # = inp.g = torch.stack([w @ row for row in out.g])
    w.g = inp.t() @ out.g
    # ~ wrong-scale: w.g = inp.t() @ out.g / inp.shape[0]
    # ~ missing-gradient (w1, w2):
    # = w.g = torch.einsum("bi,bj->ij", inp, out.g)
    b.g = out.g.sum(0)
    # ~ wrong-scale: b.g = out.g.mean(0)
    # ~ wrong-shape: b.g = out.g.sum(dim=0, keepdim=True)
    # ~ missing-gradient (b1, b2):
    # = b.g = out.g.t().sum(-1)


def relu_grad(inp: Tensor, out: Tensor) -> None:
    inp.g = (inp > 0).float() * out.g
    # ~ missing-factor: inp.g = out.g * 1
    # ~ wrong-mask: inp.g = (inp <= 0).float() * out.g
    # ~ upstream-dropped: inp.g = (inp > 0).float()
    # ~ wrong-factor|wrong-tensor|double-applied: inp.g = inp.clamp(min=0.0) * out.g
    # = inp.g = out.g.masked_fill(out == 0, 0.0)


def mse_grad(output: Tensor, targ: Tensor) -> None:
    output.g = 2 * (output - targ) / output.numel()
    # ~ wrong-scale: output.g = (output - targ) / output.numel()
    # ~ sign: output.g = 2 * (targ - output) / output.numel()
    # ~ wrong-exponent: output.g = 2 * (output - targ) ** 2 / output.numel()
    # ~ missing-factor|wrong-exponent: output.g = torch.full_like(output, 2 / output.numel())


def forward_and_backward(x, y, w1, b1, w2, b2):
    hidden = lin(x, w1, b1)
    act = relu(hidden)
    pred = lin(act, w2, b2)
    loss = mse(pred, y)

    mse_grad(pred, y)
    lin_grad(act, pred, w2, b2)
    relu_grad(hidden, act)
    lin_grad(x, hidden, w1, b1)
    # ~ missing-gradient (w1, b1):
    return loss
