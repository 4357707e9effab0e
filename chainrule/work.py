"""How much has been computed: a clock by which searches end, so that a slow machine finds what a fast one finds."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch

_OPERATIONS, _ELEMENTS = 3e4, 2e8  # that a usual core does in a second, with what decides about them
_SLOWEST = 6.0  # times as long may a second of work take, whatever it consists of


class _Clock(threading.local):
    """Seconds of work, of operations that were counted; what was not counted, or takes far longer, counts by its time."""

    def __init__(self) -> None:
        self.worked, self.counted, self.time = 0.0, 0.0, time.thread_time()

    def count(self, result: Any, read: tuple[Any, ...] = ()) -> None:
        """One operation, on the elements that it reads and gives."""
        elements = 0
        with torch._C.DisableTorchFunction():  # no size that a recording follows
            for value in (result, *read):
                if isinstance(value, torch.Tensor) and type(size := value.numel()) is int:  # nor a symbol of a trace
                    elements += size
        self.counted += 1 / _OPERATIONS + elements / _ELEMENTS

    def __call__(self) -> float:
        now = time.thread_time()
        self.worked += max(self.counted, (now - self.time) / _SLOWEST)
        self.counted, self.time = 0.0, now
        return self.worked


work = _Clock()
