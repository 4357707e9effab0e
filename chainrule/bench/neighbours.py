"""Other programs on the machine: while they run, what is measured says little."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

NOTICED = 0.1  # of the processors


@dataclass(frozen=True)
class Used:
    """Seconds of all processors, since the machine started: what everyone used, and what this program did."""

    everyone: float
    own: float
    clock: float


def used() -> Used | None:
    """What was used until now; None where the system does not tell."""
    told = Path("/proc/stat")
    if not told.exists():
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, told.read_text().split(maxsplit=9)[1:9])
    everyone = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return Used(everyone, sum(os.times()[:4]), time.perf_counter())


def by_others(before: Used | None) -> float | None:
    """The share of the processors that other programs took since.

    >>> by_others(None) is None
    True
    """
    now = used()
    if before is None or now is None:
        return None
    taken = (now.everyone - before.everyone) - (now.own - before.own)
    return max(0.0, taken / ((now.clock - before.clock) * (os.cpu_count() or 1)))
