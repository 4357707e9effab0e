"""Functions that break a promise: the circumstance, and what the message should say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from autograd_functions.elements import SinCosNone


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)))


class MulAlone(Function):
    """Breaks where b alone requires a gradient: reads a value that it makes for a."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        ga = gb = None
        if ctx.needs_input_grad[0]:
            ga = g * b
        if ctx.needs_input_grad[1]:
            gb = a * (ga / b)
        return ga, gb


class MulWrongFlag(MulAlone):
    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * b, g * a if ctx.needs_input_grad[0] else None


class ViewInBackward(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x.reshape(-1) @ w.reshape(-1)

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        flat = x.view(-1)
        return g * w.reshape(x.shape), (g * flat).reshape(w.shape)


class ReadsMemory(Function):
    """Reads x in the order of its memory."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x.as_strided(x.shape, x.new_empty(x.shape).stride())


class ForwardReadsMemory(ReadsMemory):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        y = x.as_strided(x.shape, x.new_empty(x.shape).stride())
        return y * y

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x


class ViewOfUpstream(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, grad_out):
        (x,) = ctx.saved_tensors
        return (grad_out.view(-1) * x.reshape(-1).cos()).reshape(x.shape)


class MemoryOfUpstream(ViewOfUpstream):
    """Reads the upstream in the order of its memory."""

    @staticmethod
    def backward(ctx, grad_out):
        (x,) = ctx.saved_tensors
        return x.cos() * grad_out.as_strided(x.shape, x.new_empty(x.shape).stride())


class EmptyReshape(Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.T, x.reshape(x.shape[0], -1).T @ g


class EmptyMean(EmptyReshape):
    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.T, (x[:, :, None] * g[:, None, :]).mean(0) * x.shape[0]


class UpstreamInPlace(ViewOfUpstream):
    @staticmethod
    def backward(ctx, grad_out):
        (x,) = ctx.saved_tensors
        return grad_out.mul_(x.cos())


class SavedInPlace(ViewOfUpstream):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.cos())
        return x.sin()

    @staticmethod
    def backward(ctx, grad_out):
        (cos,) = ctx.saved_tensors
        return cos.mul_(grad_out)


class InputInPlace(ViewOfUpstream):
    @staticmethod
    def backward(ctx, grad_out):
        (x,) = ctx.saved_tensors
        return x.cos_() * grad_out


class ContextInPlace(ViewOfUpstream):
    @staticmethod
    def forward(ctx, x):
        ctx.cos = x.cos()
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        ctx.cos *= grad_out
        return ctx.cos.clone()


class FreesContext(ContextInPlace):
    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        cos, ctx.cos = ctx.cos, None
        return cos * grad_out


class ForwardInPlace(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.clone())
        return x.mul_(2).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g[..., None].expand(x.shape)


class SavesIntermediate(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.tanh = x.tanh()
        return ctx.tanh * x

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.tanh + (1 - ctx.tanh**2) * torch.atanh(ctx.tanh))


class SavesIntermediateSetUp(Function):
    @staticmethod
    def forward(x):
        middle = x.exp()
        return middle * middle, middle

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.middle = output[1].clone()
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, g, _):
        return 2 * g * ctx.middle**2


class CutOff(ViewOfUpstream):
    @staticmethod
    def backward(ctx, grad_out):
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            return grad_out * x.cos()


class Numpy(ViewOfUpstream):
    @staticmethod
    def backward(ctx, grad_out):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(np.asarray(grad_out.numpy() * np.cos(x.detach().numpy())))


class SingleConstant(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * math.pi

    @staticmethod
    def backward(ctx, g):
        return g * torch.full(g.shape, math.pi, dtype=torch.float32)


class SingleReturned(SingleConstant):
    @staticmethod
    def backward(ctx, g):
        return (g * math.pi).float()


class SingleMatmul(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.rows = x.shape[0]
        return x.sum(0)

    @staticmethod
    def backward(ctx, g):
        return torch.ones(ctx.rows, 1) @ g[None]


class NoneRaises(SinCosNone):
    @staticmethod
    def backward(ctx, gs, gc):
        (x,) = ctx.saved_tensors
        return gs * x.cos() - gc * x.sin()


class NoneIsWrong(SinCosNone):
    @staticmethod
    def backward(ctx, gs, gc):
        (x,) = ctx.saved_tensors
        if gs is None:
            return None
        return gs * x.cos() - (0 if gc is None else gc * x.sin())


PAIR = (rand(5, 3), rand(5, 3, seed=1))
ONE = (rand(5, 3),)
BROKEN: dict[str, tuple[Any, tuple[Any, ...], str, str, str]] = {
    "1 raises": (MulAlone, PAIR, "MulAlone.b", "contract", "b alone requires a gradient"),
    "1 None": (MulWrongFlag, PAIR, "MulWrongFlag.b", "missing-gradient", "needs_input_grad[1]"),
    "2 raises": (ViewInBackward, PAIR, "ViewInBackward.x", "contract", "raises for x with transposed memory"),
    "2 wrong": (ReadsMemory, ONE, "ReadsMemory.x", "contract", "wrong gradients of x for x with transposed memory"),
    "2 forward": (ForwardReadsMemory, ONE, "ForwardReadsMemory.x", "contract", "forward gives other values for x"),
    "3 raises": (ViewOfUpstream, ONE, "ViewOfUpstream", "contract", "start with grad_out = grad_out.contiguous()"),
    "3 wrong": (MemoryOfUpstream, ONE, "MemoryOfUpstream", "contract", "wrong gradients of x for a gradient"),
    "5 raises": (EmptyReshape, (rand(5, 3), rand(3, 4)), "EmptyReshape", "contract", "raises for an empty batch"),
    "5 wrong": (EmptyMean, (rand(5, 3), rand(3, 4)), "EmptyMean.w", "contract", "not zero for an empty batch"),
    "6 upstream": (UpstreamInPlace, ONE, "UpstreamInPlace", "inplace-corruption", "writes into grad_out in place"),
    "6 saved": (SavedInPlace, ONE, "SavedInPlace", "inplace-corruption", "changes a tensor that forward saved"),
    "6 input": (InputInPlace, ONE, "InputInPlace", "inplace-corruption", "changes x in place"),
    "6 context": (ContextInPlace, ONE, "ContextInPlace", "inplace-corruption", "runs twice"),
    "6 freed": (FreesContext, ONE, "FreesContext", "contract", "runs twice"),
    "6 forward": (ForwardInPlace, ONE, "ForwardInPlace.x", "inplace-corruption", "mark_dirty(x)"),
    "7 attribute": (SavesIntermediate, ONE, "SavesIntermediate", "contract", "once_differentiable"),
    "7 setup_context": (SavesIntermediateSetUp, ONE, "SavesIntermediateSetUp", "contract", "once_differentiable"),
    "7 cut off": (CutOff, ONE, "CutOff", "contract", "wrong or cut off with respect to x, grad_out"),
    "7 raises": (Numpy, ONE, "Numpy", "contract", "raises under create_graph=True"),
    "8 constant": (SingleConstant, ONE, "SingleConstant.x", "contract", "although all inputs are float64"),
    "8 returned": (SingleReturned, ONE, "SingleReturned.x", "contract", "returns torch.float32 for x"),
    "8 raises": (SingleMatmul, ONE, "SingleMatmul", "contract", "raises for float64 inputs"),
    "9 raises": (NoneRaises, ONE, "NoneRaises", "contract", "raises where only output 0 has a gradient"),
    "9 wrong": (NoneIsWrong, ONE, "NoneIsWrong", "lost-path", "wrong gradients of x where only output 1"),
}
