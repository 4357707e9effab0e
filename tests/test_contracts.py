"""Promises of autograd.Functions: right ones raise no alarm, each planted breach is found and named."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from autograd_functions import broken
from autograd_functions.broken import BROKEN, ONE, CutOff, SavesIntermediate, ViewOfUpstream, rand
from autograd_functions.elements import (
    Clipped,
    Conjugate,
    Dropout,
    Exp,
    Gelu,
    Max,
    ReluInPlace,
    Reversal,
    ScaledPower,
    SinCos,
    SinCosNone,
    Single,
    StraightThrough,
    ViewAs,
)
from autograd_functions.layers import (
    Attention,
    BatchNorm,
    CholeskyLower,
    CrossEntropy,
    Embedding,
    LayerNorm,
    LayerNormOnce,
    Linear,
    LinearSetUp,
    Matmul,
    MeanSquare,
    NoTarget,
    SortNumpy,
)
from planted import Program, programs, subject

import chainrule as cr
from chainrule.diagnosis.causes import CAUSES
from chainrule.diagnosis.functions.contracts import broken_promises
from chainrule.diagnosis.functions.function_calls import is_once_differentiable

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


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_one_finding(name: str) -> None:
    function, args, named, cause, words = BROKEN[name]
    found = broken_promises(function, args)
    assert [(f.name, f.cause) for f in found] == [(named, cause)], [str(f) for f in found]
    assert words in found[0].message and cause in CAUSES
    assert found[0].message.count("\n") == 0
    assert found[0].file == broken.__file__ and found[0].line is not None


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


def test_a_backward_that_fails_for_the_inputs_as_they_are_laid_out() -> None:
    def product(x: Tensor, y: Tensor) -> Tensor:
        return broken.ViewInBackward.apply(x, y)

    report = cr.check(product, rand(3, 5).T, rand(5, 3, seed=1))
    assert {row.status for row in report.rows} == {"right"} and not report.ok
    assert (
        report.findings[0].cause == "contract" and "raises for x with transposed memory" in report.findings[0].message
    )
