"""Less memory for a little time: cheap values of the forward pass are computed again where the backward pass reads them
(Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost")."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.memory import is_view, operations, owner, size_of

aten = torch.ops.aten

# Beside elementwise operations: one pass over their input each.
_CHEAP = {
    aten.native_layer_norm.default, aten._softmax.default, aten.gelu.default, aten.native_group_norm.default,
    aten.constant_pad_nd.default, aten.embedding.default, aten.clone.default, aten._to_copy.default,
}  # fmt: skip
SMALL = 1 << 22  # bytes: nobody is short of less
LOOKS = 8  # at the peak of memory, for each takes a while
MOST = 8  # operations that one value may take to be computed again


FREE = 0.1  # of the time of a step's products: what may be spent on memory where nobody gave a budget
SPEED = 1e10  # bytes a second that a cheap operation moves


def recompute(
    lowered: Lowered, how: str, budget: int | None, peak: Callable[[], int], seconds: Callable[[], float]
) -> list[str]:
    """Compute values again in the backward pass: "all" that are cheap, or ("auto") as few as meet `budget` (bytes, as
    `peak` predicts them) and, without one, those that cost little beside the products, which take `seconds`.

    The names of those values.
    """
    saved = _saved(lowered) if how != "none" else []
    allowance = FREE * seconds() if how == "auto" and budget is None else float("inf")
    most, there = peak(), set(saved)
    done: list[fx.Node] = []

    def attempt(nodes: list[fx.Node]) -> bool:
        """Have these computed again, unless that takes too long or (for "auto") more memory."""
        nonlocal most, allowance
        undo: list[tuple[fx.Node, float, Callable[[], None]]] = []
        for node in nodes:
            cost = _seconds(node, there)
            take_back = _again(lowered, node, there) if cost <= allowance else None
            if take_back is not None:
                undo.append((node, cost, take_back))
                there.discard(node)
                allowance -= cost
        less = peak() if undo else most
        if how == "auto" and less >= most:
            for node, cost, take_back in reversed(undo):
                take_back()
                there.add(node)
                allowance += cost
            return False
        most = less
        done.extend(node for node, _, _ in undo)
        return True

    if how == "auto" and budget is None and most < SMALL:
        saved = []
    few = max(1, -(-len(saved) // LOOKS))
    for start in range(0, len(saved), few):
        if how == "auto" and budget is not None and most <= budget:
            break
        some = saved[start : start + few]
        if not attempt(some) and few > 1:
            for node in some:
                attempt([node])
    return [lowered.names.get(node, node.name) for node in done]


def _seconds(node: fx.Node, saved: set[fx.Node]) -> float:
    """A guess at the time that computing a value again takes: of the bytes that are read and written."""
    moved = [n for made in _recipe(node, saved) or () for n in (made, *made.all_input_nodes)]
    return sum(size_of(n.meta["val"]) for n in moved if isinstance(n.meta.get("val"), torch.Tensor)) / SPEED


def _saved(lowered: Lowered) -> list[fx.Node]:
    """What the forward pass keeps for the backward pass, the largest first."""
    found = {
        owner(read): None
        for node in lowered.graph.nodes
        if node in lowered.backward
        for read in node.all_input_nodes
        if owner(read) not in lowered.backward and owner(read).op == "call_function"
    }
    sizes = {n: size_of(n.meta["val"]) for n in found if isinstance(n.meta.get("val"), torch.Tensor)}
    worth = sum(sizes.values()) / 1000
    return sorted((n for n, size in sizes.items() if size > worth), key=lambda n: -sizes[n])


def _again(lowered: Lowered, node: fx.Node, saved: set[fx.Node]) -> Callable[[], None] | None:
    """Have the backward pass compute `node` again from what is there anyway; a function that takes it back."""
    recipe = _recipe(node, saved)
    readers = [u for u in operations(node) if u in lowered.backward]
    if recipe is None or not readers:
        return None
    graph = lowered.graph
    tables: list[dict[fx.Node, Any]] = [lowered.names, lowered.sites, lowered.operations]
    order = {n: i for i, n in enumerate(graph.nodes)}
    first = min(readers, key=order.__getitem__)
    copies: dict[fx.Node, fx.Node] = {}
    views = sorted({n for u in readers for n in u.all_input_nodes if owner(n) is node}, key=order.__getitem__)
    with graph.inserting_before(first):
        for source in [*recipe, *(v for v in _with_bases(views, node) if v not in recipe)]:
            copies[source] = graph.node_copy(source, lambda n: copies.get(n, n))
            lowered.backward.add(copies[source])
            for table in tables:
                if source in table:
                    table[copies[source]] = table[source]
    changed = [(reader, reader.args, reader.kwargs) for reader in readers]
    for reader in readers:
        for view in [node, *views]:
            reader.replace_input_with(view, copies.get(view, view))

    def undo() -> None:
        for reader, args, kwargs in changed:
            reader.args, reader.kwargs = args, kwargs
        for copy in reversed(list(copies.values())):
            lowered.backward.discard(copy)
            for table in tables:
                table.pop(copy, None)
            graph.erase_node(copy)

    return undo


def _with_bases(views: Iterable[fx.Node], node: fx.Node) -> list[fx.Node]:
    """Views with the views that they are views of, in order."""
    found: dict[fx.Node, None] = {}
    for view in views:
        chain = []
        while view is not node:
            chain.append(view)
            view = view.args[0]  # type: ignore[assignment]
        found |= dict.fromkeys(reversed(chain))
    return list(found)


def _recipe(node: fx.Node, saved: set[fx.Node]) -> list[fx.Node] | None:
    """The operations that make `node` from saved values and inputs, in order, where all are cheap."""
    found: dict[fx.Node, None] = {}

    def make(n: fx.Node) -> bool:
        if n.op != "call_function" or n in found or (n is not node and owner(n) in saved):
            return True
        target = n.target
        pointwise = isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
        part = not isinstance(target, torch._ops.OpOverload)
        if not (pointwise or part or is_view(n) or target in _CHEAP or not n.all_input_nodes):
            return False
        if isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags:
            return False
        if len(found) >= MOST or not all(make(read) for read in n.all_input_nodes):
            return False
        found[n] = None
        return True

    return list(found) if make(node) else None
