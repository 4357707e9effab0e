"""What the derived code takes for granted about shapes, written as assertions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.rules import BOOK
from chainrule.run import needed

if TYPE_CHECKING:
    from chainrule.show.layout import Layout


def statements(layout: Layout) -> Iterator[tuple[str, bool]]:
    """One condition for each input that broadcasting stretches or might stretch, and for each path chosen;
    with each, whether it speaks of the inputs alone."""
    said: dict[str, bool] = {}
    if ones := list(_sizes_of_one(layout)):
        said[f"{' == '.join(ones)} == 1"] = True  # what is not stretched now might be stretched otherwise
    for node in layout.live:
        if node.meta["phase"] == "forward" and node.op != "placeholder" and elementwise(node):
            said |= dict.fromkeys(_broadcast(layout, node), False)
        elif node.meta["phase"] == "forward" and node.meta["operation"] in _PIECES and is_tensor(node):
            for axis, size in enumerate(node.meta["val"].shape):
                if size == 1 and _cut(node, axis):
                    said[f"{layout.python.text(node, 10)}.shape[{axis}] == 1"] = False
    for guard in layout.guards:
        below = [n for n in needed([guard.node]) if isinstance(n.meta["val"], torch.Tensor)]
        said[layout.python.condition(guard.node)] = all(n.op == "placeholder" for n in below)
    yield from said.items()


_PIECES = frozenset(("getitem", "narrow", "part"))


def _sizes_of_one(layout: Layout) -> Iterator[str]:
    for node in layout.live:
        if node.op == "placeholder" and node in layout.variables and not node.meta.get("seed"):
            for axis, size in enumerate(node.meta["val"].shape):
                if size == 1:
                    yield f"{layout.variables[node]}.shape[{axis}]"


def is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta["val"], torch.Tensor)


def _cut(node: fx.Node, axis: int) -> bool:
    """Whether that axis was cut to size one by a slice, and not made by `None`."""
    if node.meta["operation"] != "getitem":
        return True
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    kept = [i for i in index if not isinstance(i, int)]
    entry = kept[axis] if axis < len(kept) and Ellipsis not in index else None
    return isinstance(entry, slice) and entry != slice(None)


def _broadcast(layout: Layout, node: fx.Node) -> Iterator[str]:
    shape = node.meta["val"].shape
    operands = [n for n in dict.fromkeys(node.all_input_nodes) if isinstance(n.meta["val"], torch.Tensor)]
    whole = [n for n in operands if n.meta["val"].shape == shape]
    said: set[fx.Node] = set()
    for operand in operands:
        if operand.op != "placeholder" or operand not in layout.variables or len(operands) < 2:
            continue
        others = [n for n in whole if n is not operand]
        if operand not in whole:
            yield _shape_of_input(layout, operand, node)
        elif others and not any(_same_by_construction(operand, n) or n in said for n in others):
            said.add(operand)
            name = next((layout.variables[n] for n in others if n in layout.shown and n in layout.variables), None)
            yield (
                f"{layout.variables[operand]}.shape == {name}.shape" if name else _shape_of_input(layout, operand, node)
            )


def _same_by_construction(operand: fx.Node, other: fx.Node) -> bool:
    """Whether `other` was made from `operand` element by element, and so has its shape."""
    if other is operand:
        return True
    above = other.all_input_nodes if other.op != "placeholder" and elementwise(other) else []
    shape = other.meta["val"].shape
    return any(is_shaped(n, shape) and _same_by_construction(operand, n) for n in above)


def is_shaped(node: fx.Node, shape: tuple[int, ...]) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.shape == shape


def _related(start: fx.Node, besides: fx.Node) -> Iterator[fx.Node]:
    """The values that have the shape of `start` by construction, nearest first; not through `besides`."""
    shape, seen, queue = start.meta["val"].shape, {start, besides}, [start]
    while queue:
        current = queue.pop(0)
        yield current
        near = [u for u in current.users if u.meta.get("phase") == "forward" and elementwise(u)]
        near += current.all_input_nodes if current.op != "placeholder" and elementwise(current) else []
        for n in near:
            if n not in seen and is_shaped(n, shape):
                seen.add(n)
                queue.append(n)


def _shape_of_input(layout: Layout, operand: fx.Node, out: fx.Node) -> str:
    name, small, large = layout.variables[operand], tuple(operand.meta["val"].shape), tuple(out.meta["val"].shape)
    if not small:
        return f"{name}.ndim == 0"
    whole = _same_shape(layout, out, operand)
    lead = len(large) - len(small)
    if whole is None:
        ones = [f"{name}.shape[{axis}] == 1" for axis, size in enumerate(small) if size == 1 != large[lead + axis]]
        return " and ".join([f"{name}.ndim == {len(small)}", *ones])
    if small == large:
        return f"{name}.shape == {whole}.shape"
    if small == large[lead:]:
        return f"{name}.shape == {whole}.shape[{lead}:]"
    sizes = ["1" if s == 1 != large[lead + a] else f"{whole}.shape[{lead + a}]" for a, s in enumerate(small)]
    return f"{name}.shape == ({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _same_shape(layout: Layout, node: fx.Node, other_than: fx.Node) -> str | None:
    """The name of a value that has the shape of `node` by construction."""
    for n in _related(node, other_than):
        if n in layout.shown and n in layout.variables:
            return layout.variables[n]
    return None


def elementwise(node: fx.Node) -> bool:
    """Whether the value of `node` has the broadcast shape of what it was made from."""
    rule = BOOK.find(node.meta.get("operation", ""))
    return rule is not None and rule.elementwise and isinstance(node.meta["val"], torch.Tensor)
