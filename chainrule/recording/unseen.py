"""What happens out of the recorder's sight, told to the one that is under way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from chainrule.recording.entries import version_of

if TYPE_CHECKING:
    from chainrule.recording.recorder import Recorder

_here = threading.local()


def under_way() -> list[Recorder]:
    """The recorders under way in this thread, innermost last."""
    found: list[Recorder] = _here.__dict__.setdefault("recorders", [])
    return found


def drawn(tensor: torch.Tensor, name: str, again: Callable[[], torch.Tensor] | None = None) -> torch.Tensor:
    """Make random numbers that were drawn out of sight an input of the program under recording; `again` draws
    such numbers anew."""
    if stack := under_way():
        stack[-1].leaf(tensor, name=name).meta.update(operation="drawn", constant=True, again=again)
    return tensor


def rewritten(tensor: torch.Tensor, unharmed: tuple[str, ...]) -> None:
    """Take an input as it is now, after it was changed out of sight in a way that leaves the results of the
    `unharmed` operations that have read it, and of those that pass no gradient, as they were."""
    stack = under_way()
    entry = stack[-1].entry(tensor) if stack else None
    if entry is None or entry.node.op != "placeholder":
        return
    entry.node.meta["rewritten"] = True
    if all(user.meta.get("constant") or user.meta["operation"] in unharmed for user in entry.node.users):
        entry.version = entry.node.meta["version"] = version_of(tensor)
