"""Watches a person's code set `.g` (or `.grad`) on tensors: which value, in which order, on which line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.spots import Spot, Spots
from chainrule.recording import Recorder
from chainrule.recording.names import is_person
from chainrule.recording.unseen import under_way


@dataclass
class Write:
    """`tensor.g = value`, as it happened."""

    tensor: torch.Tensor
    owner: fx.Node | None  # the value of the tensor at that time
    value: Any
    node: fx.Node | None  # the value that was set
    spot: Spot
    before: Any  # what `.g` held
    attribute: str = "g"
    kept: torch.Tensor | None = None  # the numbers that were set

    @property
    def empties(self) -> bool:
        """Whether this only makes ready for another run: None, or zeros."""
        zeros = self.node is not None and self.node.meta["operation"] in ("zeros", "zeros_like", "new_zeros")
        return self.value is None or zeros


class Writes:
    """The writes of one run, in order."""

    def __init__(self, recorder: Recorder, spots: Spots) -> None:
        self.recorder, self.spots = recorder, spots
        self.made: list[Write] = []
        self._taken: set[fx.Node] = set()

    def set(self, tensor: torch.Tensor, value: Any, attribute: str) -> Any:
        """Note a write; what is to be kept as the gradient."""
        frame: Any = sys._getframe(2)
        while frame is not None and not is_person(frame.f_code):
            frame = frame.f_back
        if frame is None or not under_way() or under_way()[-1] is not self.recorder:
            return value
        before = tensor.__dict__.get("g") if attribute == "g" else None
        spot = self.spots.of(frame)
        owner = self.recorder.entry(tensor)
        if isinstance(value, torch.Tensor) and value is not before:
            value = self._own(value)
        entry = self.recorder.entry(value) if isinstance(value, torch.Tensor) else None
        node = entry.node if entry is not None else None
        kept = None
        if node is not None and isinstance(value, torch.Tensor):
            self._taken.add(node)
            with torch._C.DisableTorchFunction():
                kept = value.detach().clone()
        self.made.append(
            Write(tensor, owner.node if owner is not None else None, value, node, spot, before, attribute, kept)
        )
        self.spots.moved()
        return value

    def _own(self, value: torch.Tensor) -> torch.Tensor:
        """The value under a node of its own, where the node is another value's already: `b.g = out.g`."""
        entry = self.recorder.entry(value)
        if entry is None or (entry.node not in self._taken and not self._named(entry.node)):
            return value
        fresh: torch.Tensor = value.detach()  # shares the memory, as the person's assignment does
        known = self.recorder.entry(fresh)
        if known is not None:
            known.node.meta["same_as"] = entry.node
        return fresh

    @staticmethod
    def _named(node: fx.Node) -> bool:
        return node.op == "placeholder" or bool(node.meta.get("name")) or bool(node.users)


class _Attribute:
    """Stands in the place of `.g` on every tensor, and tells of what is set."""

    def __init__(self, writes: Writes) -> None:
        self.writes = writes

    def __get__(self, tensor: Any, kind: Any = None) -> Any:
        if tensor is None:
            return self
        try:
            return tensor.__dict__["g"]
        except KeyError:
            raise AttributeError(f"{type(tensor).__name__!r} object has no attribute 'g'") from None

    def __set__(self, tensor: torch.Tensor, value: Any) -> None:
        tensor.__dict__["g"] = self.writes.set(tensor, value, "g")

    def __delete__(self, tensor: torch.Tensor) -> None:
        try:
            del tensor.__dict__["g"]
        except KeyError:
            raise AttributeError("g") from None


class _Grad:
    """Stands in the place of `.grad`: torch keeps the value, and checks its shape and dtype."""

    def __init__(self, writes: Writes) -> None:
        self.writes, self.own = writes, vars(torch._C.TensorBase)["grad"]

    def __get__(self, tensor: Any, kind: Any = None) -> Any:
        if tensor is None:
            return self
        with torch._C.DisableTorchFunction():  # a read is no operation
            return self.own.__get__(tensor, kind)

    def __set__(self, tensor: torch.Tensor, value: Any) -> None:
        value = self.writes.set(tensor, value, "grad")
        with torch._C.DisableTorchFunction():
            self.own.__set__(tensor, value)

    def __delete__(self, tensor: torch.Tensor) -> None:
        with torch._C.DisableTorchFunction():
            self.own.__set__(tensor, None)


@contextmanager
def watched(recorder: Recorder, spots: Spots) -> Iterator[Writes]:
    """While open, what is set as `.g` and as `.grad` on any tensor is noted."""
    writes = Writes(recorder, spots)
    kept = {name: vars(torch.Tensor)[name] for name in ("g", "grad") if name in vars(torch.Tensor)}
    torch.Tensor.g = _Attribute(writes)  # type: ignore[attr-defined]
    torch.Tensor.grad = _Grad(writes)  # type: ignore[assignment]
    try:
        yield writes
    finally:
        for name in ("g", "grad"):
            if name in kept:
                setattr(torch.Tensor, name, kept[name])
            else:
                delattr(torch.Tensor, name)
