"""Bare assignments, `dz = da`, get a node of their own: no operation is recorded there, but a mistake may stand there."""

from __future__ import annotations

import ast
import dis
import functools
import types
from dataclasses import dataclass

import torch
from torch import fx

from chainrule.diagnosis import source
from chainrule.diagnosis.spots import Spot, span_of


@dataclass(frozen=True)
class _Bare:
    """`name = other` on one line of a function."""

    name: str
    other: str
    line: int
    index: int  # of the instruction that sets the name


def give_nodes(graph: fx.Graph, outside: set[fx.Node]) -> None:
    """In the graph of a run, let what reads `dz` after `dz = da` read a node that stands for the assignment.

    `outside` are the nodes of the forward pass, in which nothing is changed.
    """
    made: dict[tuple[int, int, fx.Node], fx.Node] = {}
    for reader in list(graph.nodes):
        spot: Spot | None = reader.meta.get("spot")
        if spot is None or reader in outside:
            continue
        bare = {b.name: b for b in _bare_in(spot.code) if b.line < spot.line or _loops(spot.code)}
        if not bare:
            continue
        read = _names_read(reader)
        for value in list(reader.all_input_nodes):
            name = next((n for n in bare if n in read and spot.names.get(n) is value), None)
            if name is None or not isinstance(value.meta.get("val"), torch.Tensor) or bare[name].other in read:
                continue
            key = (spot.call, bare[name].index, value)
            node = made.get(key)
            if node is None:
                with graph.inserting_before(reader):
                    node = graph.call_function(torch.ops.aten.alias.default, (value,))
                at = Spot(spot.code, bare[name].index, spot.order, spot.call, spot.names, spot.space)
                node.meta.update(
                    operation="alias", phase="forward", val=value.meta["val"], name=name, same_as=value, spot=at
                )
                made[key] = node
            reader.replace_input_with(value, node)


@functools.lru_cache(maxsize=256)
def _bare_in(code: types.CodeType) -> tuple[_Bare, ...]:
    wanted: dict[int, tuple[str, str]] = {}
    for node in ast.walk(source.tree_of(code.co_filename)):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target = node.targets[0]
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Name | ast.Attribute):
            wanted[node.lineno] = (target.id, ast.unparse(node.value))
    found = []
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno if instruction.positions else None
        if (
            instruction.opname in ("STORE_FAST", "STORE_DEREF")
            and line in wanted
            and wanted[line][0] == instruction.argval
        ):
            found.append(_Bare(*wanted[line], line, instruction.offset // 2))
    return tuple(found)


def _loops(code: types.CodeType) -> bool:
    return any(i.opname == "JUMP_BACKWARD" for i in dis.get_instructions(code))


def _names_read(node: fx.Node) -> set[str]:
    """The names in the source of one operation."""
    span = span_of(node)
    if span is None:
        return set()
    try:
        tree = ast.parse(source.text_at(span).strip() or "0")
    except SyntaxError:
        return set()
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }
