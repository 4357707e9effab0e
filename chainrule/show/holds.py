"""What the derived code takes for granted about shapes, written as assertions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import fx

if TYPE_CHECKING:
    from chainrule.show.layout import Layout


def statements(layout: Layout) -> Iterator[str]:
    """One condition for each input that broadcasting stretches, and for each path that was chosen."""
    from chainrule.show.layout import elementwise

    said: set[str] = set()
    for node in layout.live:
        if node.meta["phase"] != "forward" or node.op == "placeholder" or not elementwise(node):
            continue
        operands = [n for n in node.all_input_nodes if isinstance(n.meta["val"], torch.Tensor)]
        if len(operands) < 2:
            continue
        for operand in operands:
            if operand.op == "placeholder" and operand in layout.variables:
                text = _shape_of_input(layout, operand, node)
                if text not in said:
                    said.add(text)
                    yield text
    for guard in layout.program.guards:
        text = layout.python.text(guard.node)
        if text not in said:
            said.add(text)
            yield text


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
    from chainrule.show.layout import elementwise

    shape, seen, queue = node.meta["val"].shape, {node}, [node]
    while queue:
        current = queue.pop(0)
        if current in layout.shown and current is not other_than and current in layout.variables:
            return layout.variables[current]
        near = [u for u in current.users if u.meta.get("phase") == "forward" and elementwise(u)]
        near += current.all_input_nodes if elementwise(current) and current.op != "placeholder" else []
        for n in near:
            value = n.meta.get("val")
            if n not in seen and isinstance(value, torch.Tensor) and value.shape == shape:
                seen.add(n)
                queue.append(n)
    return None
