"""From a forward pass to a graph: names, lines, values. Knows no derivative."""

from chainrule.recording.recorder import Entry, Guard, Recorder

__all__ = ["Entry", "Guard", "Recorder"]
