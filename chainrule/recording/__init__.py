"""From a forward pass to a graph: names, lines, values. Knows no derivative."""

from chainrule.recording.entries import Entry, Guard, Region
from chainrule.recording.recorder import Recorder

__all__ = ["Entry", "Guard", "Recorder", "Region"]
