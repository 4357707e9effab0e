"""Another value in reach in the place of one that is read, or two in the place of one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.mutation import REPLACED, Around, Mutation
from chainrule.diagnosis.sketch import is_tensor

COMPARISONS = frozenset(("gt", "ge", "lt", "le", "eq", "ne"))


def other_tensors(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Another value in reach in the place of one that is read."""
    cause = "wrong-mask" if node.meta["operation"] in COMPARISONS else "wrong-tensor"
    reach = around.names(node)
    for place, value in enumerate(node.args):
        if not is_tensor(value) or value not in reach:
            continue
        for other in reach:
            if other is not value and other is not node and _may_replace(other, value):
                args = (*node.args[:place], other, *node.args[place + 1 :])
                same = other.meta["val"].shape == value.meta["val"].shape  # type: ignore[union-attr]
                yield Mutation(node, around.sketches.like(node, args), cause, REPLACED + (0.3 if same else 0.6))


def exchanged(nodes: list[fx.Node], around: Around) -> Iterator[Mutation]:
    """Two values in the place of one another, or one in the place of another wherever it is read."""
    read = [n for n in around.reach if any(n in reader.all_input_nodes for reader in nodes)]
    for value in read:
        readers = [r for r in nodes if value in r.all_input_nodes]
        for other in around.reach:
            if other is value or not _may_replace(other, value):
                continue
            both = other in read
            if both or len(readers) > 1:
                swap = {value: other, other: value} if both else {value: other}
                moved = [r for r in nodes if any(n in swap for n in r.all_input_nodes)]
                changes = [(r, around.sketches.with_inputs(r, swap)) for r in moved]
                if len(changes) > 1:
                    yield Mutation(*changes[-1], "wrong-tensor", REPLACED + 0.7, changes=changes)


def _may_replace(other: fx.Node, value: Any) -> bool:
    a, b = other.meta["val"], value.meta["val"]
    return isinstance(a, torch.Tensor) and a.dtype.is_floating_point == b.dtype.is_floating_point and a.ndim == b.ndim
