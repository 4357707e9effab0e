"""An edit that may repair a line, and how far it goes from what the person wrote."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.report import Edit


@dataclass
class Option:
    """An edit that may repair a line."""

    weight: float
    edit: Edit
    text: str  # the new statement
    spot: Spot
    at: fx.Node  # the operation that is changed
    cause: str | None = None
    change: float = 0.0  # the weight of the change, wherever it stands

    @property
    def far(self) -> float:
        """How far it goes from what the person wrote; a longer text is farther."""
        before = sum(
            len(line.strip()) for line in source.lines_of(self.edit.file)[self.edit.first - 1 : self.edit.last]
        )
        return self.weight + max(len(self.text) - before, -20) / 60
