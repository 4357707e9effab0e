"""Which part of a long sweep runs: another one each day, or the whole.

CHAINRULE_SWEEP=all runs everything, CHAINRULE_SWEEP=2026-11-21 what that day runs.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Written down for the workers: their day is that of the process that started them.
SWEEP = os.environ.setdefault("CHAINRULE_SWEEP", datetime.date.today().isoformat())
EVERYTHING = SWEEP == "all"
DAY = (datetime.date.today() if EVERYTHING else datetime.date.fromisoformat(SWEEP)).toordinal()


def of_today(items: Sequence[T], every: int) -> list[T]:
    """One of `every` of the items; in as many days, each has had its turn."""
    return list(items) if EVERYTHING else list(items[DAY % every :: every])
