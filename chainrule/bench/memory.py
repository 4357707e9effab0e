"""What a step holds at its peak, from the allocators' own reports."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch.profiler import ProfilerActivity, profile


def of_tensors(step: Callable[[], object]) -> int:
    """The most that torch's allocator for the CPU holds during `step`, beyond what it held before."""
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step()
    assert run.profiler is not None and run.profiler.kineto_results is not None
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    return peak(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))


def of_arrays(step: Callable[[], object]) -> int:
    """The most that `step` holds beyond what was held before, as Python's tracemalloc counts it: NumPy reports to it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def peak(changes: Iterable[int]) -> int:
    """The highest sum on the way.

    >>> peak([4, 8, -4, 2, -10])
    12
    """
    held = most = 0
    for change in changes:
        held += change
        most = max(most, held)
    return most


@contextmanager
def _silent() -> Iterator[None]:
    """The profiler's library writes to the process's stderr whenever it starts and stops; that is kept from the screen."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
