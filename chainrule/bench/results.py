"""What was found: for each work its floor, and a line for each contender."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chainrule.bench.contender import EAGER, OURS
from chainrule.bench.floor import Floor

MEASURED, WRONG, SKIPPED = "measured", "wrong", "skipped"


@dataclass
class Line:
    """One contender on one work; times in seconds, memory in bytes."""

    name: str
    family: str
    status: str = MEASURED
    reason: str = ""  # why it was skipped, or in what it is wrong
    samples: list[float] = field(default_factory=list)
    memory: int | None = None
    first_step: float | None = None
    apart: float | None = None  # from autograd in float64, as a fraction of the update

    @property
    def seconds(self) -> float:
        """The median; it is asked only of what was measured."""
        return statistics.median(self.samples)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "family": self.family, "status": self.status}
        if self.status != MEASURED:
            return {**found, "reason": self.reason}
        times = {"seconds": self.seconds, "samples": self.samples, "first_step": self.first_step}
        return {**found, **times, "memory": self.memory, "apart": self.apart}


@dataclass
class Block:
    """One work."""

    name: str
    title: str
    matrix_bound: bool
    floor: Floor
    lines: list[Line]
    others: float | None = None  # the share of the processors that other programs took meanwhile

    def fastest(self, *families: str) -> Line | None:
        """The fastest that was measured of these families."""
        return _fastest(line for line in self.measured if line.family in families)

    @property
    def measured(self) -> list[Line]:
        return [line for line in self.lines if line.status == MEASURED]

    @property
    def eager(self) -> Line | None:
        """The best of eager's spellings."""
        return self.fastest(EAGER)

    @property
    def peer(self) -> Line | None:
        """The fastest that is not chainrule's."""
        return _fastest(line for line in self.measured if line.family != OURS)

    @property
    def ours(self) -> Line | None:
        return self.fastest(OURS)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "matrix_bound": self.matrix_bound,
            "others": self.others,
            "floor": self.floor.as_json(),
            "contenders": [line.as_json() for line in self.lines],
        }


def _fastest(lines: Iterable[Line]) -> Line | None:
    return min(lines, key=lambda line: line.seconds, default=None)
