"""Promises of autograd.Functions: right ones raise no alarm, each planted breach is found and named."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from planted import Program, programs, subject

from chainrule.diagnosis.causes import CAUSES
from chainrule.diagnosis.contracts import broken_promises, broken_promises_of_operator
from chainrule.diagnosis.function_calls import is_once_differentiable


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 7 * sum(shape)))


# -- right Functions ---------------------------------------------------------------------------------


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


class Gelu(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        return g * (cdf + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi))


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


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, g):
        (out,) = ctx.saved_tensors
        return g * out


class ReluInPlace(Function):
    @staticmethod
    def forward(ctx, x):
        x.clamp_(min=0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, g):
        (out,) = ctx.saved_tensors
        return g * (out > 0)


class ScaledPower(Function):
    """Arguments of other kinds: a number, a string, a flag."""

    @staticmethod
    def forward(ctx, x, power, name, negative):
        ctx.save_for_backward(x)
        ctx.power, ctx.sign = power, -1 if negative else 1
        return ctx.sign * x.abs() ** power

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * ctx.sign * ctx.power * x.abs() ** (ctx.power - 1) * x.sign(), None, None, None


class SinCos(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx, gs, gc):
        (x,) = ctx.saved_tensors
        return gs * x.cos() - gc * x.sin()


class SinCosNone(SinCos):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx, gs, gc):
        (x,) = ctx.saved_tensors
        terms = ([] if gs is None else [gs * x.cos()]) + ([] if gc is None else [-gc * x.sin()])
        return sum(terms) if terms else None


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


class Max(Function):
    @staticmethod
    def forward(ctx, x):
        values, index = x.max(-1)
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return values

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        return g.new_zeros(ctx.shape).scatter(-1, index[..., None], g[..., None])


class Dropout(Function):
    @staticmethod
    def forward(ctx, x, p):
        mask = torch.rand(x.shape, device=x.device) > p
        ctx.save_for_backward(mask)
        ctx.p = p
        return x * mask / (1 - p)

    @staticmethod
    def backward(ctx, g):
        (mask,) = ctx.saved_tensors
        return g * mask / (1 - ctx.p), None


class StraightThrough(Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


class Reversal(Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -ctx.strength * g, None


class Clipped(Function):
    """Passes x on; its gradient is cut to [-1, 1]."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-1, 1)


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


class Single(Function):
    """Takes float32 alone."""

    @staticmethod
    def forward(ctx, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 only")
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


class Conjugate(Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return (g * b.conj()).sum_to_size(a.shape), (g * a.conj()).sum_to_size(b.shape)


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


class ViewAs(Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return (g * b).reshape(a.shape), (g * a).sum_to_size(b.shape)


LINEAR = (rand(5, 3), rand(4, 3, seed=1), rand(4, seed=2))
NORM = (rand(5, 6), rand(6, seed=1), rand(6, seed=2), 1e-5)
HEADS = (rand(2, 3, 5, 4), rand(2, 3, 5, 4, seed=1), rand(2, 3, 5, 4, seed=2), 0.5)
RIGHT: dict[str, tuple[Any, tuple[Any, ...], Callable[..., Any] | None]] = {
    "linear": (Linear, LINEAR, None),
    "linear with a reference": (Linear, LINEAR, lambda x, w, b: x @ w.T + b),
    "linear, square": (Linear, (rand(4, 4), rand(4, 4, seed=1), torch.zeros(4)), None),
    "linear, one row": (Linear, (rand(1, 3), rand(1, 3, seed=1), rand(1)), None),
    "linear, empty": (Linear, (rand(0, 3), rand(4, 3, seed=1), rand(4)), None),
    "linear, setup_context": (LinearSetUp, LINEAR, None),
    "matmul": (Matmul, (rand(5, 3), rand(3, 4)), None),
    "matmul of batches": (Matmul, (rand(2, 5, 3), rand(2, 3, 4)), None),
    "gelu": (Gelu, (rand(5, 3),), F.gelu),
    "gelu of a scalar": (Gelu, (rand(),), None),
    "layer norm": (LayerNorm, NORM, None),
    "layer norm once": (LayerNormOnce, NORM, None),
    "exp": (Exp, (rand(7),), torch.exp),
    "relu in place": (ReluInPlace, (rand(5, 3),), None),
    "relu at zeros": (ReluInPlace, (rand(5, 3).clamp_min(0),), None),
    "other arguments": (ScaledPower, (rand(5, 3), 3, "cube", True), None),
    "two outputs": (SinCos, (rand(5, 3),), lambda x: (x.sin(), x.cos())),
    "two outputs, None": (SinCosNone, (rand(5, 3),), None),
    "numpy": (SortNumpy, (rand(5, 3), -1), None),
    "cross entropy": (CrossEntropy, (rand(5, 3), torch.tensor([0, 2, 1, 1, 0])), None),
    "embedding": (Embedding, (torch.tensor([[0, 2, 0], [1, 1, 3]]), rand(4, 3)), None),
    "attention": (Attention, HEADS, None),
    "max": (Max, (rand(5, 3),), None),
    "max of ties": (Max, (torch.ones(5, 3),), None),
    "dropout": (Dropout, (rand(5, 3), 0.5), None),
    "straight through": (StraightThrough, (rand(5, 3),), None),
    "straight through with a reference": (StraightThrough, (rand(5, 3),), torch.round),
    "reversal": (Reversal, (rand(5, 3), 0.5), None),
    "clipped": (Clipped, (rand(5, 3),), None),
    "running statistics": (BatchNorm, (rand(5, 3), rand(3), rand(3)), None),
    "float32 alone": (Single, (rand(5, 3),), None),
    "float32 alone with a reference": (Single, (rand(5, 3),), torch.tanh),
    "float64": (Gelu, (rand(5, 3).double(),), None),
    "bfloat16": (Gelu, (rand(5, 3).bfloat16(),), None),
    "complex": (
        Conjugate,
        (torch.complex(rand(5, 3), rand(5, 3, seed=1)), torch.complex(rand(3), rand(3, seed=1))),
        None,
    ),
    "no gradient of the target": (NoTarget, (rand(5, 3), rand(5, 3, seed=1)), None),
    "mean square": (MeanSquare, (rand(5, 3), rand(5, 3, seed=1)), None),
    "product of one shape": (ViewAs, (rand(5, 3), rand(5, 3, seed=1)), None),
    "cholesky": (CholeskyLower, (rand(3, 3) @ rand(3, 3).T + 3 * torch.eye(3),), None),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_functions_raise_no_alarm(name: str) -> None:
    function, args, reference = RIGHT[name]
    before = [a.clone() if isinstance(a, Tensor) else a for a in args]
    state = torch.get_rng_state()
    found = broken_promises(function, args, reference)
    assert found == [], [str(f) for f in found]
    assert all(torch.equal(a, b) for a, b in zip(args, before) if isinstance(a, Tensor))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", RIGHT)
def test_right_functions_that_are_differentiable_once_raise_no_alarm(name: str) -> None:
    function, args, reference = RIGHT[name]
    once = type(function.__name__, (function,), {"backward": staticmethod(once_differentiable(function.backward))})
    assert is_once_differentiable(once)
    found = broken_promises(once, args, reference)
    assert found == [], [str(f) for f in found]


def test_what_is_marked_differentiable_once() -> None:
    @functools.wraps(LayerNormOnce.backward)
    def around(*args: Any) -> Any:
        return LayerNormOnce.backward(*args)

    decorated = type("Around", (LayerNormOnce,), {"backward": staticmethod(around)})
    assert is_once_differentiable(LayerNormOnce) and is_once_differentiable(decorated)
    assert not is_once_differentiable(LayerNorm) and not is_once_differentiable(CutOff)


@pytest.mark.parametrize("program", programs("function_"), ids=lambda program: program.name)
def test_the_right_functions_of_the_corpus_raise_no_alarm(program: Program, tmp_path: Path) -> None:
    for planted in program.cases():
        if planted.kind == "mistake":
            continue
        code, args, _ = subject(planted.load(tmp_path))
        calls: list[tuple[Any, tuple[Any, ...]]] = []
        with noted(sys.modules[code.__module__], calls):
            code(*args)
        assert calls, str(planted)
        for function, given in calls:
            found = broken_promises(function, given)
            assert found == [], [str(planted), *map(str, found)]


@contextlib.contextmanager
def noted(module: ModuleType, calls: list[tuple[Any, tuple[Any, ...]]]) -> Iterator[None]:
    """While open, notes each call of the module's Functions."""
    own = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Function) and v is not Function]

    def noting(function: Any, apply: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append((function, args))
            return apply(*args)

        return call

    for function in own:
        function.apply = noting(function, function.apply)
    try:
        yield
    finally:
        for function in own:
            del function.apply


# -- broken ones: the circumstance, and what the message says -----------------------------------------


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


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_one_finding(name: str) -> None:
    function, args, named, cause, words = BROKEN[name]
    found = broken_promises(function, args)
    assert [(f.name, f.cause) for f in found] == [(named, cause)], [str(f) for f in found]
    assert words in found[0].message and cause in CAUSES
    assert found[0].message.count("\n") == 0
    assert found[0].file == __file__ and found[0].line is not None


def test_the_line_that_raises_is_named() -> None:
    (finding,) = broken_promises(ViewOfUpstream, ONE)
    assert finding.text == "return (grad_out.view(-1) * x.reshape(-1).cos()).reshape(x.shape)"
    assert finding.repair == "grad_out = grad_out.contiguous()"
    (finding,) = broken_promises(SavesIntermediate, ONE)
    assert finding.text == "def backward(ctx, g):" and "once_differentiable" in finding.repair


def test_second_derivatives_are_compared_with_the_reference() -> None:
    class Half(SavesIntermediate):
        @staticmethod
        def forward(ctx, x):
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            return SavesIntermediate.forward(ctx, x)

    assert broken_promises(Half, ONE) == []
    (finding,) = broken_promises(Half, ONE, lambda x: x * x.tanh())
    assert "second derivatives" in finding.message


def test_an_expanded_upstream_of_a_sum() -> None:
    class Row(ViewOfUpstream):
        @staticmethod
        @once_differentiable
        def backward(ctx, grad_out):
            (x,) = ctx.saved_tensors
            if grad_out.numel() > 1 and grad_out.stride(0) == 0:
                raise RuntimeError("stride 0")
            return grad_out * x.cos()

    (finding,) = broken_promises(Row, (rand(7),))
    assert "raises for a gradient that is expanded, as from out.sum().backward()" in finding.message
    assert broken_promises(ViewOfUpstream, (rand(7),)) == []  # a vector of stride 0 has a view


def test_an_operand_of_one_row_that_only_a_bias_stretches_is_no_breach() -> None:
    with pytest.raises(RuntimeError):  # forward takes this weight, backward does not
        w = rand(1, 3).requires_grad_()
        Linear.apply(rand(5, 3).requires_grad_(), w, rand(4)).sum().backward()
    assert broken_promises(Linear, LINEAR) == []


def test_backward_that_fails_anyway_is_checked_elsewhere() -> None:
    class Fails(Linear):
        @staticmethod
        def backward(ctx, g):
            raise ValueError("no")

    assert broken_promises(Fails, LINEAR) == []


# -- registered operators ------------------------------------------------------------------------------


@torch.library.custom_op("chainrule_tests::scaled", mutates_args=())
def scaled(x: Tensor, factor: float) -> Tensor:
    return x * factor


@scaled.register_fake
def _(x: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x)


scaled.register_autograd(
    lambda ctx, g: (g * ctx.factor, None),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "factor", inputs[1]),
)


@torch.library.custom_op("chainrule_tests::unfaked", mutates_args=())
def unfaked(x: Tensor) -> Tensor:
    return x * 2


@torch.library.custom_op("chainrule_tests::aliased", mutates_args=())
def aliased(x: Tensor) -> Tensor:
    x.mul_(2)
    return x.clone()


def test_operators() -> None:
    assert broken_promises_of_operator(scaled, (rand(3, 2).requires_grad_(), 2.0)) == []
    found = broken_promises_of_operator(unfaked, (rand(3),))
    assert {f.name for f in found} == {"chainrule_tests::unfaked"}
    assert any("register_fake" in f.message for f in found)
    assert all(f.file == __file__ and f.cause == "contract" for f in found)
    assert any("mutates_args" in f.message for f in broken_promises_of_operator(aliased, (rand(3),)))
