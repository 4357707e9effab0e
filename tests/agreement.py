"""What tests ask of gradients: autograd's own, from the person's own tensors, and how near is near enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import chainrule as cr
from chainrule.checking.closeness import Leaves, assert_close

__all__ = ["Leaves", "assert_close"]  # from here on: what else tests ask


def assert_gradients(ours: dict[str, Tensor | None], truth: dict[str, Tensor | None], tolerance: float = 1e-10) -> None:
    assert list(ours) == list(truth)
    for name in truth:
        assert_close(ours[name], truth[name], tolerance)


def namespace_of(source: str, **given: Any) -> dict[str, Any]:
    """What emitted code defines, run in a namespace that holds `given` and nothing else."""
    space: dict[str, Any] = dict(given)
    exec(compile(source, "<emitted>", "exec"), space)
    return space


def run_emitted(d: cr.Derivation, *inputs: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The emitted function of `d`, run alone."""
    result: tuple[Tensor, dict[str, Tensor | None]] = namespace_of(d.source("function"))["forward_and_backward"](
        *inputs
    )
    return result


def identifier(name: str) -> str:
    """The variable of an input in emitted code: dots are underscores, and what the code imports keeps its name."""
    variable = re.sub(r"\W", "_", name)
    variable = f"t{variable}" if variable[0].isdigit() else variable
    return f"{variable}_1" if variable in ("F", "torch") else variable


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def loss_of(output: Any) -> Tensor:
    """A loss of all that a layer gives, so that every path back is taken."""
    parts = output if isinstance(output, tuple) else (output,)
    return sum((loss_of(p) if isinstance(p, tuple) else (p**2).sum()) * (k + 1) for k, p in enumerate(parts))  # type: ignore[return-value]


def assert_as_autograd(call: Callable[..., Tensor], *args: Any) -> cr.Derivation:
    """`call` is derived by rules alone, with autograd's gradients, and its emitted code gives them too."""
    torch.manual_seed(3)
    d = cr.derive(call, *args, wrt=None)
    assert d.fallbacks == []
    with Leaves(d, only_given=True) as leaves:
        torch.manual_seed(3)
        loss = call(*args)
        truth = dict(zip(leaves.names, leaves.gradients(loss), strict=True))
    assert_close(d.output, loss)
    for name, gradient in truth.items():
        assert_close(d.grads[name], gradient)
    output, emitted = run_emitted(d, *(d[name].value.clone() for name in d.inputs))
    assert_close(output, loss)
    for name, gradient in truth.items():
        assert_close(emitted[name], gradient)
    return d
