"""Gradients whose elements are limited after they were computed, for the step that follows: `np.clip(dw, -5, 5, out=dw)`."""

from __future__ import annotations

from torch import fx

from chainrule.run import overwritten, restore

_COPIES = frozenset(("clone", "copy", "expand", "alias", "contiguous", "detach"))


def before_clipping(node: fx.Node) -> fx.Node:
    """A gradient as it was before its elements were limited to numbers from `-c` to `c`, if that is the last that is
    done to it; else itself."""
    clipped = node
    while clipped.meta["operation"] in _COPIES and clipped.args and isinstance(clipped.args[0], fx.Node):
        clipped = clipped.args[0]
    if clipped.meta["operation"] != "clamp" or len(clipped.args) != 3:
        return node
    before, low, high = clipped.args
    numbers = isinstance(low, int | float) and isinstance(high, int | float) and low == -high
    if not numbers or not isinstance(before, fx.Node) or before.op == "placeholder":
        return node
    if overwritten(before):
        restore(before)
    return before
