"""Which of the person's functions were under way when an operation was recorded."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx


@dataclass(frozen=True, eq=False)
class Invocation:
    """One call of a function or method of the person's."""

    function: str
    owner: str  # the class of a method
    arguments: dict[fx.Node, str]  # the names under which it knows the values that it was given


class Invocations:
    """The calls that a recorder has been in, each found by its frame. `entry(tensor)` has the node of a tensor."""

    def __init__(self, entry: Callable[[torch.Tensor], Any]) -> None:
        self.entry = entry
        self._found: dict[types.FrameType, Invocation] = {}

    def of(self, frames: list[types.FrameType]) -> tuple[Invocation, ...]:
        """From the outermost to the one that runs; frames that have finished are let go of."""
        self._found = {frame: self._found.get(frame) or self._met(frame) for frame in frames}
        return tuple(self._found.values())

    def _met(self, frame: types.FrameType) -> Invocation:
        code, held = frame.f_code, frame.f_locals
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        owner = type(held["self"]).__name__ if names[:1] == ("self",) and "self" in held else ""
        tensors = {name: held[name] for name in names if isinstance(held.get(name), torch.Tensor)}
        known = {name: self.entry(tensor) for name, tensor in tensors.items()}
        given = {entry.node: name for name, entry in known.items() if entry is not None}
        return Invocation(code.co_name, owner, given)

    def forget(self) -> None:
        """Let go of the frames that are left."""
        self._found = {}
