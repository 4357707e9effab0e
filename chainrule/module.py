"""Layers by hand: a class with `forward`, and `bwd` where one wants to write it oneself."""

from __future__ import annotations

from typing import Any

import torch

from chainrule.derivation import Derivation
from chainrule.deriving import EVERYTHING, derive
from chainrule.errors import ChainruleError


class Module:
    """A layer that keeps its arguments and its output, and leaves `.g` on what it read.

    Write `forward`, and `bwd(self, out, *args)` if you like; without it the backward pass is derived
    from `forward`, and `print(layer.derived)` shows it.

    >>> class Lin(Module):
    ...     def __init__(self, w, b): self.w, self.b = w, b
    ...     def forward(self, inp): return inp @ self.w + self.b
    >>> x, lin = torch.ones(3, 4), Lin(torch.ones(4, 2), torch.zeros(2))
    >>> out = lin(x)
    >>> out.g = torch.ones(3, 2)
    >>> lin.backward()
    >>> lin.b.g, x.g.shape
    (tensor([3., 3.]), torch.Size([3, 4]))
    """

    args: tuple[Any, ...]
    out: torch.Tensor

    def __call__(self, *args: Any) -> Any:
        self.args = args
        self.out = self.forward(*args)
        return self.out

    def forward(self, *args: Any) -> Any:
        raise ChainruleError(f"{type(self).__name__} has no forward; write def forward(self, ...)")

    def backward(self) -> None:
        """Leave `.g` on the arguments of the last call and on the layer's own tensors."""
        if "args" not in self.__dict__:
            raise ChainruleError(
                f"{type(self).__name__}.backward was called before the layer itself; call it forward first"
            )
        self.bwd(self.out, *self.args)

    def bwd(self, out: torch.Tensor, *args: Any) -> None:
        self.derived.leave_gradients(inputs_only=True)

    @property
    def derived(self) -> Derivation:
        """The backward pass of the last call, derived from `forward`."""
        upstream = getattr(self.out, "g", None)
        if upstream is None and self.out.numel() != 1:
            raise ChainruleError(
                f"the output of {type(self).__name__} {tuple(self.out.shape)} has no .g yet; "
                "run the backward of the layer above it first"
            )
        return derive(self.forward, *self.args, wrt=EVERYTHING, upstream=upstream)
