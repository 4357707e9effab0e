"""A torch.autograd.Function as an ordinary pair of functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from chainrule.diagnosis.reading.handwritten import Asked


def pair(function: Any, args: Sequence[Any], reference: Callable[..., Any] | None = None) -> Asked:
    """The Function's forward and backward with a context of their own, to be run once."""
    context, name = Context(), function.__name__
    context.needs_input_grad = tuple(isinstance(a, torch.Tensor) and a.dtype.is_floating_point for a in args)
    backward, forward = functools.partial(function.backward, context), Forward(function, context, name)
    return Asked(backward, tuple(args), forward=forward, reference=reference, function=name)


class Context:
    """Stands in the place of autograd's `ctx`, so that forward and backward can be called as plain functions."""

    saved_tensors: tuple[Any, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()
    not_differentiable: tuple[Any, ...] = ()
    materializes = True  # zeros for the gradient of an output that has none
    saved: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None  # told what is saved
    kept: Callable[[str, Any], Any] | None = None  # told what else is kept, under which name

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.kept is None or name in dir(Context)
        object.__setattr__(self, name, value if own else self.kept(name, value))  # type: ignore[misc]

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors if self.saved is None else self.saved(tensors)

    def save_for_forward(self, *tensors: Any) -> None:
        pass  # for forward-mode derivatives alone

    def mark_dirty(self, *tensors: Any) -> None:
        pass

    def mark_non_differentiable(self, *tensors: Any) -> None:
        self.not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self.materializes = value

    def without_upstream(self, output: Any) -> Any:
        """What backward is given for an output that has no gradient; NotImplemented for one that has."""
        if isinstance(output, torch.Tensor) and not any(output is t for t in self.not_differentiable):
            return NotImplemented
        return torch.zeros_like(output) if isinstance(output, torch.Tensor) and self.materializes else None

    @property
    def saved_variables(self) -> tuple[Any, ...]:
        return self.saved_tensors


class Forward:
    """A Function's forward as a function of its inputs alone."""

    def __init__(self, function: Any, context: Context, name: str) -> None:
        self.function, self.context, self.__name__ = function, context, name
        self.apart = "setup_context" in vars(function)
        self.__wrapped__ = function.forward if self.apart else functools.partial(function.forward, context)

    def __call__(self, *args: Any) -> Any:
        out = self.__wrapped__(*args)
        if self.apart:
            self.function.setup_context(self.context, args, out)
        return out
