"""Small numbers that only keep a logarithm or a quotient finite: `log(p + 1e-7)`, `e / (e.sum() + 1e-9)`."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

_OF_A_LOGARITHM = 1e-5  # the largest number that is added to what a logarithm is taken of, to keep it finite
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
            share = _share(small[0], node, readers)
            if {u.meta["operation"] for u in readers} == {"log"}:
                self.added_to[node] = node.all_input_nodes[0]
            elif 0 < share <= _OF_A_QUOTIENT:
                self.added_to[node] = node.all_input_nodes[0]
                self.slight = max(self.slight, share)


def _share(small: float, node: fx.Node, readers: list[fx.Node]) -> float:
    """How much of what only divides is the number that is added to it; 0 where it is read otherwise."""
    value = node.all_input_nodes[0].meta["val"]
    divides = all(u.meta["operation"] == "div" and u.args[1] is node and u.args[0] is not node for u in readers)
    least = float(value.abs().min()) if divides and isinstance(value, torch.Tensor) and value.numel() else 0.0
    return small / least if least and readers else 0.0
