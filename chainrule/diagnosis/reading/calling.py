"""Calls a person's code under the recorder: with arrays for NumPy code, with upstream gradients that are drawn."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from chainrule.arrays.code import is_numpy_code
from chainrule.arrays.numpy_as_torch import numpy_as_torch
from chainrule.arrays.values import as_arrays
from chainrule.deriving import new_recorder
from chainrule.diagnosis.reading.aliases import saved
from chainrule.diagnosis.reading.handwritten import Asked, Met
from chainrule.diagnosis.reading.spots import Spot, Spots
from chainrule.recording.numbers import Tracked


class Calling:
    """One run of a person's code: what it is called with, and what is noted meanwhile."""

    def __init__(self, asked: Asked, seed: int, met: Met | None) -> None:
        self.asked, self.seed = asked, seed
        self.recorder = new_recorder()
        self.recorder.every_path = True
        self.spots = Spots(self.recorder)
        self.recorder.noticed = self.spots
        self.recorder.met = met
        self.upstream: torch.Tensor | None = None
        self.own: torch.Tensor | None = None
        self.began = 0
        self.drawn = 0  # upstream gradients, each of other numbers
        self.left_out: list[str] = []  # parameters that may take the gradient of another output
        self.supposed: list[str] = []  # parameters of a backward function that nothing names
        self.bare = False  # whether backward() took no upstream gradient
        self.kept: dict[str, tuple[float, Spot]] = {}
        self.code = asked.code
        self.globals: dict[str, Any] = {}  # that the code names, as they were while it ran
        self.object = _owner(asked.code)

    @contextmanager
    def _numpy(self, code: Any) -> Iterator[None]:
        before, arrays = self.spots.arrays, is_numpy_code(code, (self.asked.args, self.asked.kwargs))
        self.spots.arrays = arrays
        try:
            with numpy_as_torch(code) if arrays else nullcontext():
                yield
        finally:
            self.spots.arrays = before

    def _given(self, code: Any, values: Any) -> Any:
        return as_arrays(tuple(values)) if is_numpy_code(code, (self.asked.args, self.asked.kwargs)) else values

    def _given_by_name(self, code: Any, values: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(values, self._given(code, values.values()), strict=True))

    def _given_upstream(self, out: torch.Tensor) -> torch.Tensor:
        """The upstream gradient that the backward pass is called with: random, for a loss too unless a 1 is asked for."""
        upstream = self._random(out)
        if self.asked.unit and out.numel() == 1:
            with torch._C.DisableTorchFunction():
                upstream = torch.ones_like(upstream)
        self.recorder.leaf(upstream, name="out_g").meta["upstream"] = True
        return upstream

    def _random(self, out: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(
            _OWN + self.seed + _APART * self.drawn
        )  # no numbers that they drew, too
        self.drawn += 1
        with torch._C.DisableTorchFunction():  # no operation of the person's program
            return torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)

    def _saved(self, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
        """What ctx.save_for_backward keeps, under nodes of its own: a mistake may stand there."""
        spot = self.spots.of(sys._getframe(2))
        known = [self.recorder.entry(t) if isinstance(t, torch.Tensor) else None for t in tensors]
        nodes = [e.node if e is not None else None for e in known]
        return tuple(
            self.recorder.alias(t, saved(self.recorder.graph, n, spot, k)) if n is not None else t
            for k, (t, n) in enumerate(zip(tensors, nodes, strict=True))
        )

    def _kept(self, name: str, value: Any) -> Any:
        """What is kept as `ctx.name`: a number is noted, and a tensor stands under a node of its own."""
        spot = self.spots.of(sys._getframe(2))
        if isinstance(value, bool | int | float | Tracked):
            self.kept[name] = value.plain() if isinstance(value, Tracked) else value, spot
        return value


_OWN, _APART = 0x5EED_C0DE, 0x1_0000_0001


def _owner(code: Any) -> Any:
    """The object whose attributes the code may use for parameters and gradients: itself, or that of its method."""
    if isinstance(code, types.MethodType):
        code = code.__self__
    return None if isinstance(code, types.FunctionType | types.ModuleType | type) else code
