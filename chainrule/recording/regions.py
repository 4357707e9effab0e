"""Calls that have a backward step of their own: a person's functions with a rule, and autograd.Functions."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from chainrule.errors import Site
from chainrule.recording.dispatch import APPLY
from chainrule.recording.entries import Region

if TYPE_CHECKING:
    from chainrule.recording.recorder import Recorder


class Regions:
    """The regions that a recorder is in or has been in, each found by the frame of its call."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._found: dict[types.FrameType, Region] = {}

    def __iter__(self) -> Iterator[Region]:
        return iter(self._found.values())

    def forget(self) -> None:
        """Let go of the frames, and of what they hold."""
        self._found.clear()

    def of(self, frame: types.FrameType, frames: list[types.FrameType], site: Site | None) -> Region | None:
        """The outermost call under way that has a backward step of its own."""
        if not torch.is_grad_enabled():
            apply = self._function(frame)
            if apply is not None:
                if apply not in self._found:
                    given = apply.f_locals["args"]
                    nodes = self.recorder.to_nodes(given, frames, site)
                    self._found[apply] = Region(apply.f_code, nodes, apply.f_locals["cls"], given)
                return self._found[apply]
        if self.recorder.owned is None:
            return None
        for frame in frames:
            if self.recorder.owned(frame.f_code) is None:
                continue
            if frame not in self._found:
                code = frame.f_code
                given = {name: frame.f_locals[name] for name in code.co_varnames[: code.co_argcount]}
                self._found[frame] = Region(code, self.recorder.to_nodes(given, frames, site))
            return self._found[frame]
        return None

    def _function(self, frame: types.FrameType | None) -> types.FrameType | None:
        """The outermost torch.autograd.Function.apply under way."""
        found = None
        while frame is not None and frame is not self.recorder.watch.root:
            if frame.f_code is APPLY:
                found = frame
            frame = frame.f_back
        return found
