"""Bare assignments, `dz = da`, get a node of their own: no operation is recorded there, but a mistake may stand there."""

from __future__ import annotations

import ast
import dis
import functools
import types
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

import torch
from torch import fx

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Spot, span_of


@dataclass(frozen=True)
class _Bare:
    """`name = other` on one line of a function; `grads[i] = other`."""

    name: str
    other: str
    line: int
    index: int  # of the instruction that sets the name


def give_nodes(graph: fx.Graph, outside: Set[fx.Node]) -> None:
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
            if name is None or not isinstance(value.meta.get("val"), torch.Tensor):
                continue
            if bare[name].other in read and not _reads_itself(reader, bare[name]):
                continue
            if _is_later(value, bare[name], spot):
                continue
            key = (spot.call, bare[name].index, value)
            node = made.get(key)
            if node is None:
                with graph.inserting_before(reader):
                    node = made[key] = _alias(graph, value, replace(spot, index=bare[name].index), name)
            reader.replace_input_with(value, node)


def _alias(graph: fx.Graph, value: fx.Node, at: Spot, name: str) -> fx.Node:
    node = graph.call_function(torch.ops.aten.alias.default, (value,))
    node.meta.update(operation="alias", phase="forward", val=value.meta["val"], same_as=value, spot=at)
    node.meta.update(name=name or None, site=value.meta.get("site"))
    return node


def saved(graph: fx.Graph, value: fx.Node, at: Spot, place: int) -> fx.Node:
    """A node for the argument at `place` of ctx.save_for_backward(...)."""
    node = alias_at(graph, value, at)
    node.meta["span"] = source.argument_at(at.span, place) if at.span is not None else None
    return node


def alias_at(graph: fx.Graph, value: fx.Node, at: Spot) -> fx.Node:
    """A node for a value that is kept there."""
    return _alias(graph, value, at, "")


def node_for(graph: fx.Graph, targets: Iterable[str], value: fx.Node, outside: Set[fx.Node]) -> fx.Node | None:
    """A node for the assignment `target = other` that gave `value` the name of a gradient; None where there is none.

    `targets` are names that hold it; `outside` are the nodes of the forward pass.
    """
    wanted = {_stem(target) for target in targets}
    calls: dict[tuple[types.CodeType, int], list[fx.Node]] = {}
    for node in graph.nodes:
        spot: Spot | None = node.meta.get("spot")
        if spot is not None and node not in outside:
            calls.setdefault((spot.code, spot.call), []).append(node)
    for (code, _), nodes in reversed(calls.items()):
        for bare in _bare_in(code) if wanted else ():
            before = [n for n in nodes if n.meta["spot"].line <= bare.line]
            if _stem(bare.name) not in wanted or not before:
                continue
            if "[" in bare.name:
                if (turn := _turn_of(value, bare, _bare_in(code), nodes)) is not None:
                    with graph.inserting_after(value):  # in the order of the turns
                        return _alias(graph, value, replace(turn, index=bare.index), bare.name)
                continue
            last: Spot = max((n.meta["spot"] for n in before), key=lambda s: s.order)
            names = {**last.names, **{n.meta["name"]: n for n in before if n.meta.get("name")}}
            if names.get(bare.other) is value or _is_bound(value, bare.other, last):
                return _alias(graph, value, replace(last, index=bare.index, names=names), bare.name)
    return None


def _turn_of(value: fx.Node, bare: _Bare, others: Iterable[_Bare], nodes: list[fx.Node]) -> Spot | None:
    """Where `grads[i] = dz` puts this value into a list, in one turn of a loop: the first such line below that which made
    the value, or above all that know it by its name."""
    known = sorted(
        (n.meta["spot"] for n in nodes if n.meta["spot"].names.get(bare.other) is value), key=lambda s: s.order
    )
    if not known:
        return None
    binds = [
        n for n in ast.walk(source.tree_of(known[0].file)) if isinstance(n, ast.Assign) and n.lineno <= known[0].line
    ]
    bound = [n.lineno for n in binds if any(isinstance(t, ast.Name) and t.id == bare.other for t in n.targets)]
    line = max((n for n in bound if n >= known[0].code.co_firstlineno), default=known[0].line)
    lines = [b.line for b in others if b.other == bare.other and _stem(b.name) == _stem(bare.name) and b.line >= line]
    return known[-1] if not lines or bare.line == min(lines) else None


def _stem(target: str) -> str:
    """`dw` of `self.dw`; `grads[]` of an entry of a list."""
    name, bracket, _ = target.split(".")[-1].partition("[")
    return name + (bracket and "[]")


def _is_bound(value: fx.Node, name: str, last: Spot) -> bool:
    """Whether a value was bound to `name` where it was made: in the last turn of a loop it goes by its last name."""
    made: Spot | None = value.meta.get("spot")
    if made is None or made.span is None or made.code is not last.code or made.call != last.call:
        return False
    assigned = source.assignment_at(made.span)
    return assigned is not None and assigned.target == name and not assigned.augmented


@functools.lru_cache(maxsize=256)
def _bare_in(code: types.CodeType) -> tuple[_Bare, ...]:
    wanted: dict[int, tuple[str, str]] = {}
    for node in ast.walk(source.tree_of(code.co_filename)):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target = node.targets[0]
        kept = isinstance(target, ast.Name | ast.Attribute | ast.Subscript)
        if kept and isinstance(node.value, ast.Name | ast.Attribute):
            wanted[node.lineno] = (ast.unparse(target), ast.unparse(node.value))
    found = []
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno if instruction.positions else None
        if line not in wanted:
            continue
        into = instruction.opname == "STORE_SUBSCR" and wanted[line][0].endswith("]")
        named = instruction.opname in ("STORE_FAST", "STORE_DEREF", "STORE_ATTR")
        if into or (named and wanted[line][0].split(".")[-1] == instruction.argval):
            found.append(_Bare(*wanted[line], line, instruction.offset // 2))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def _loops(code: types.CodeType) -> bool:
    return any(i.opname == "JUMP_BACKWARD" for i in dis.get_instructions(code))


def _is_later(value: fx.Node, bare: _Bare, reader: Spot) -> bool:
    """Whether a value was made between the assignment and where it is read: the name was bound again."""
    made: Spot | None = value.meta.get("spot")
    here = made is not None and made.call == reader.call and bare.line < made.line <= reader.line
    return here and reader.names.get(bare.other) is not value


def _reads_itself(reader: fx.Node, bare: _Bare) -> bool:
    """Whether an operation is applied to the one name and not to the other: `dz * (1 - da)`."""
    span = span_of(reader)
    operands = [source.text_at(place) for place in source.operands_at(span)] if span is not None else []
    return bare.name in operands and bare.other not in operands


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
