"""`cr.compile`: from a forward pass to a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from chainrule.compiling.engines import ENGINES
from chainrule.compiling.optimisers import Optimiser
from chainrule.compiling.planner import Planner
from chainrule.compiling.step import Step
from chainrule.errors import ChainruleError


def compile(
    forward: Callable[..., torch.Tensor],
    *example: Any,
    params: Any = None,
    optimizer: Optimiser | None = None,
    engine: str = "torch",
    dtype: torch.dtype | None = None,
    accumulate: int = 1,
    recompute: str = "auto",
    memory: float | None = None,
    **named: Any,
) -> Step:
    """A training step: one call does the forward pass, its derived backward pass and the update in place.

    `forward(*example)` is the loss, a scalar; `params` are the tensors that move (default: those that require a
    gradient), updated in place by `optimizer` (`cr.SGD`, `cr.Adam`, `cr.AdamW`). Without one, a call returns
    (loss, {name: gradient}) and moves nothing. Other shapes of batch are planned when they are first met.

    `engine`: "torch" is straight-line torch calls in memory planned ahead; "inductor" the same program through
    `torch.compile`; "c" C, beside libraries for large products; "cudagraph" one CUDA graph; "auto" the
    fastest of them, by measuring once.
    `dtype=torch.bfloat16` computes products in bfloat16 while parameters stay as they are. `accumulate=k` moves the
    parameters at every k-th call, by the mean of k gradients. `memory` is a budget in MB for what a step needs beside
    the parameters; `recompute` says whether cheap values are computed again in the backward pass to meet it: "auto",
    "none" or "all".

    The step is compared with autograd before it is given. Raises ChainruleError where the forward pass cannot be
    derived, or where an engine is not to be had.

    >>> import chainrule as cr
    >>> x, y, w = torch.randn(8, 3), torch.randn(8, 2), torch.zeros(3, 2, requires_grad=True)
    >>> def forward(x, y): return ((x @ w - y) ** 2).mean()
    >>> step = cr.compile(forward, x, y, params=[w], optimizer=cr.SGD(lr=0.1))
    >>> losses = [step(x, y) for _ in range(10)]
    >>> bool(losses[-1] < losses[0])
    True
    """
    if not callable(forward):
        raise ChainruleError(
            f"compile was given a {type(forward).__name__}, not a function; give the forward pass itself"
        )
    if engine not in ENGINES:
        *others, last = (f'"{name}"' for name in ENGINES)
        raise ChainruleError(f'no engine is called "{engine}"; there are {", ".join(others)} and {last}')
    if optimizer is not None and not isinstance(optimizer, Optimiser):
        raise ChainruleError(
            f"compile was given the optimizer {type(optimizer).__name__}; it takes cr.SGD, cr.Adam, cr.AdamW or None"
        )
    if recompute not in ("auto", "none", "all"):
        raise ChainruleError(f'compile was given recompute="{recompute}"; there are "auto", "none" and "all"')
    if memory is not None and not isinstance(memory, int | float):
        raise ChainruleError(f"compile was given memory={memory!r}; it is a number, of MB")
    if accumulate < 1 or (accumulate > 1 and optimizer is None):
        raise ChainruleError(
            f"compile was given accumulate={accumulate} and optimizer={optimizer}; gradients are gathered over one call "
            "or more, for an optimizer that moves the parameters by them"
        )
    given = _tensors(params)
    if given == []:
        raise ChainruleError("compile was given no params; leave them out for all that require a gradient")
    if optimizer is not None and not all(p.is_leaf for p in given or ()):
        raise ChainruleError(
            "compile was given a parameter that was computed from others; give the tensor that it was made from"
        )
    if optimizer is not None and optimizer.taken:
        optimizer = copy.copy(optimizer)  # a step counts for itself
        optimizer.steps = 0
    if optimizer is not None:
        optimizer.taken = True
    planner = Planner(forward, given, optimizer, engine, dtype, accumulate, recompute, memory)
    step = Step(planner)
    step.prepare(*example, **named)
    return step


def _tensors(params: Any) -> list[torch.Tensor] | None:
    """The parameters, given as tensors, by name, as what `model.named_parameters()` gives, or as a model."""
    if params is None:
        return None
    if isinstance(params, torch.Tensor):
        return [params]
    if isinstance(params, torch.nn.Module):
        return list(params.parameters())
    values: Sequence[Any] = list(params.values() if isinstance(params, dict) else params)
    values = [v[1] if isinstance(v, tuple) and len(v) == 2 else v for v in values]
    for value in values:
        if not isinstance(value, torch.Tensor):
            raise ChainruleError(f"compile was given params with {type(value).__name__} among them; give tensors")
    return values
