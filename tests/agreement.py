"""What tests ask of gradients: autograd's own, from the person's own tensors, and how near is near enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import chainrule as cr


class Leaves:
    """For a while, the person's own tensors that a derivation gave a gradient for require gradients."""

    def __init__(self, d: cr.Derivation, only_given: bool = False) -> None:
        self.names = [name for name, g in d.grads.items() if g is not None or not only_given]
        self.tensors = [tensor for tensor, g in d.pairs() if g is not None or not only_given]

    def __enter__(self) -> Leaves:
        self.switched = [t for t in self.tensors if not t.requires_grad]
        for tensor in self.switched:
            tensor.requires_grad_(True)
        return self

    def __exit__(self, *error: object) -> None:
        for tensor in self.switched:
            tensor.requires_grad_(False)

    def gradients(self, output: Tensor, upstream: Tensor | None = None, **how: Any) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(output, self.tensors, upstream, allow_unused=True, **how)


def assert_close(ours: Tensor | None, theirs: Tensor | None, tolerance: float = 1e-10) -> None:
    """Equal to `tolerance` of the largest element; None is a gradient of zeros."""
    if ours is None or theirs is None:
        other = ours if theirs is None else theirs
        assert other is None or not other.any(), f"one is None, the other {other}"
        return
    ours, theirs = ours.detach(), theirs.detach()
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    ours, theirs = ours[theirs.isfinite()], theirs[theirs.isfinite()]
    if theirs.numel():
        assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max()) + 1e-13


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
