"""The shapes of a line as they meet: (4, 100) @ (100, 2) -> (4, 2)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.show.python import ATOM, Python, Spelled

_MOVED = frozenset(
    ("T", "mT", "t", "transpose", "permute", "reshape", "view", "flatten", "unsqueeze", "squeeze", "expand", "getitem",
     "expand_as", "broadcast_to", "movedim", "contiguous", "detach", "clone", "to", "type_as", "float", "double", "part")
)  # fmt: skip


class Shapes(Python):
    """Spells a value as its shape, and an expression by the shapes of what it reads."""

    def spell(self, value: Any) -> Spelled:
        if isinstance(value, fx.Node):
            held = value.meta["val"]
            if isinstance(held, int | float):
                return f"{held:g}", ATOM
            moved = value.meta["operation"] in _MOVED or value.target is getattr
            if isinstance(held, torch.Tensor) and (self.variable(value) is not None or moved):
                return shape_of(held), ATOM
        return super().spell(value)


def shape_of(value: Any) -> str:
    """The shape of a tensor, or of each of several."""
    if isinstance(value, torch.Tensor):
        return str(tuple(value.shape))
    return ", ".join(shape_of(v) for v in value) if isinstance(value, tuple | list) else ""


def meeting(node: fx.Node, variable: Callable[[fx.Node], str | None], alias: bool = False) -> str:
    """The expression of a line in shapes, with the shape of the result."""
    result = shape_of(node.meta["val"])
    if alias or node.op == "placeholder":
        return result
    shapes = Shapes(variable)
    moved = node.meta["operation"] in _MOVED and node.args and isinstance(node.args[0], fx.Node)
    spelled = (shapes.spell(node.args[0]) if moved else shapes.expression(node))[0]
    return result if node.target is operator.getitem or spelled == result else f"{spelled} -> {result}"


def stretched(shape: tuple[int, ...], to: tuple[int, ...]) -> list[int]:
    """The axes of `to` along which a value of `shape` was repeated by broadcasting.

    >>> stretched((3,), (4, 3)), stretched((4, 1), (4, 3)), stretched((2, 3), (2, 3))
    ([0], [1], [])
    """
    missing = len(to) - len(shape)
    return [i for i, n in enumerate(to) if i < missing or (shape[i - missing] == 1 and n != 1)]
