"""Small numbers that only keep a logarithm or a quotient finite: `log(p + 1e-7)`, `e / (e.sum() + 1e-9)`."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

_OF_A_LOGARITHM = 1e-5  # the largest number that is added to what a logarithm is taken of, to keep it finite
_TINY = 1e-300
_OF_A_QUOTIENT = 1e-6  # that of what divides, relative to what it is added to


class Guards:
    """Those of a forward pass."""

    def __init__(self, forward: Collection[fx.Node]) -> None:
        self.added_to: dict[fx.Node, fx.Node] = {}  # each sum, with what the number is added to
        self.slight = 0.0  # how much they change what divides, relatively, at the most
        for node in forward:
            small = [a for a in node.args if type(a) is float and 0 < a <= _OF_A_LOGARITHM]
            if node.meta.get("operation") != "add" or len(small) != 1 or len(node.all_input_nodes) != 1:
                continue
            readers = [u for u in node.users if u in forward]
            if {u.meta["operation"] for u in readers} == {"log"}:
                self.added_to[node] = node.all_input_nodes[0]
            elif readers and all(_divides(node, u) for u in readers):
                share = small[0] / _least(node.all_input_nodes[0].meta["val"])
                if share <= _OF_A_QUOTIENT:
                    self.added_to[node] = node.all_input_nodes[0]
                    self.slight = max(self.slight, share)


def _divides(node: fx.Node, reader: fx.Node) -> bool:
    return reader.meta["operation"] == "div" and reader.args[1:] == (node,) and reader.args[0] is not node


def _least(value: object) -> float:
    """The least absolute value; as little as can be where it is no tensor of such numbers."""
    known = isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel()
    return max(float(value.abs().min()), _TINY) if known else _TINY  # type: ignore[attr-defined]
