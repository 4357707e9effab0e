"""What is computed once: equal calls become one, and what nobody reads goes."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered

_RANDOM = torch.Tag.nondeterministic_seeded


def merge(lowered: Lowered) -> None:
    """Merge equal calls in the graph, fold numbers, and drop what is not needed for its outputs."""
    graph = lowered.graph
    known: dict[Any, fx.Node] = {}
    same: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        node.target = _AS_VIEWS.get(node.target, node.target)
        _without_effect(node)
        if _is_random(node):
            continue
        key = (node.target, _key(node.args), _key(node.kwargs))
        first = known.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            same[node] = first
    clean(lowered, same)


def clean(lowered: Lowered, replaced: dict[fx.Node, fx.Node]) -> None:
    """Drop what nobody reads any more, and point to the nodes that stand for those that were replaced."""
    for node in reversed(list(lowered.graph.nodes)):
        if node.op == "call_function" and not node.users:
            lowered.graph.erase_node(node)
    _follow(lowered, replaced)


def _is_random(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and _RANDOM in node.target.tags


_COPIES = {torch.ops.aten.detach.default, torch.ops.aten.alias.default, torch.ops.aten.lift_fresh_copy.default}


def _without_effect(node: fx.Node) -> None:
    """Read past what returns its input."""
    source: Any = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return
    value: Any = node.meta.get("val")
    given: Any = source.meta.get("val")
    same = node.target in _COPIES or (
        node.target in _RESHAPES and value.shape == given.shape and value.stride() == given.stride()
    )
    if same:
        node.replace_all_uses_with(source)


_AS_VIEWS: dict[Any, Any] = {torch.ops.aten._unsafe_view.default: torch.ops.aten.view.default}
_RESHAPES = {
    torch.ops.aten.view.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.permute.default,
}


def _key(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in sorted(value.items()))
    return (type(value), value) if not isinstance(value, fx.Node) else value


def _follow(lowered: Lowered, same: dict[fx.Node, fx.Node]) -> None:
    """Point to the nodes that stand for those that are gone."""
    results: list[Any] = list(lowered.graph.output_node().args[0])  # type: ignore[arg-type]
    taken = iter(results)
    lowered.loss = next(taken)
    lowered.gradients = {p: next(taken) for p in lowered.gradients}
    lowered.writes = {p: next(taken) for p in lowered.writes}
    lowered.guards = [(next(taken), meaning) for _, meaning in lowered.guards]
    tables: list[dict[fx.Node, Any]] = [lowered.names, lowered.sites, lowered.operations]
    for node, first in same.items():
        for table in tables:
            if node in table:
                table.setdefault(first, table[node])
        if node in lowered.backward:
            lowered.backward.add(first)
    alive = set(lowered.graph.nodes)
    lowered.operations = {n: operation for n, operation in lowered.operations.items() if n in alive}
    lowered.names = {n: name for n, name in lowered.names.items() if n in alive}
    lowered.sites = {n: site for n, site in lowered.sites.items() if n in alive}
    lowered.backward &= alive


def parts(node: fx.Node) -> dict[int, fx.Node]:
    """The results of a call that gives several, by position."""
    return {user.args[1]: user for user in node.users if user.target is operator.getitem}  # type: ignore[misc]
