"""In which order a step's lines run, and how long each value lives."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.memory import operations, owner, size_of


@dataclass(frozen=True)
class Line:
    """One line of a step: an operation, the look at the loss and the guards, a parameter's move by its gradient, or
    a value that forward leaves in a tensor that stays."""

    kind: str  # "operation", "check", "move", "write" or "close"
    node: fx.Node | None = None  # the operation; the gradient; the value that is written
    home: fx.Node | None = None  # the parameter, or the tensor that is written to
    late: tuple[fx.Node, ...] = ()  # what is looked at; the gradients of parameters that move together, at the close

    @property
    def reads(self) -> list[fx.Node]:
        if self.node is None:
            return list(self.late)
        return self.node.all_input_nodes if self.kind == "operation" else [self.node]


def scheduled(
    lowered: Lowered, moves: bool, folded: dict[fx.Node, fx.Node], together: Collection[fx.Node] = ()
) -> list[Line]:
    """The lines in order. Nothing that stays is written before the loss has been looked at, nor before the last
    line that reads its old value; each parameter moves as soon as it can, which lets its gradient go.

    `folded` gradients (parameter -> product) are computed by the move itself, so they have no line of their own.
    The parameters that move `together` do so at the close.
    """
    nodes = [n for n in lowered.graph.nodes if n.op == "call_function" and n not in folded.values()]
    place = {n: i for i, n in enumerate(nodes)}
    checked = max([place.get(n, -1) for n in (lowered.loss, *(g for g, _ in lowered.guards))])
    nodes = [*nodes[: checked + 1], *freeing(nodes, checked + 1)]
    place = {n: i for i, n in enumerate(nodes)}
    last: dict[fx.Node, int] = {}
    for i, node in enumerate(nodes):
        for read in (*node.all_input_nodes, *node.meta.get("reads", ())):  # also what it is not given, but holds
            last[owner(read)] = i
    after: dict[int, list[Line]] = {}

    def add(kind: str, node: fx.Node, home: fx.Node) -> None:
        made = [place[n] for n in (node.all_input_nodes if folded.get(home) is node else [node]) if n in place]
        after.setdefault(max(checked, last.get(home, -1), *made, -1), []).append(Line(kind, node, home))

    if moves:
        for p, gradient in lowered.gradients.items():
            if p not in together:
                add("move", gradient, p)
    for home, value in lowered.writes.items():
        add("write", value, home)
    late = tuple(gradient for p, gradient in lowered.gradients.items() if moves and p in together)
    looked_at = (lowered.loss, *(guard for guard, _ in lowered.guards))
    return [*_woven(nodes, after, checked, Line("check", late=looked_at)), Line("close", late=late)]


def _woven(nodes: list[fx.Node], after: dict[int, list[Line]], checked: int, check: Line) -> Iterator[Line]:
    if checked < 0:
        yield check
    yield from after.get(-1, ())
    for i, node in enumerate(nodes):
        yield Line("operation", node)
        if i == checked:
            yield check
        yield from after.get(i, ())


def lives(lines: list[Line], folded: dict[fx.Node, fx.Node], kept: set[fx.Node]) -> dict[fx.Node, tuple[int, int]]:
    """For each value that owns memory: the line that makes it, and the last that reads it or a view of it."""
    found: dict[fx.Node, tuple[int, int]] = {}
    for i, line in enumerate(lines):
        if line.kind == "operation" and line.node is not None and owner(line.node) is line.node:
            whole = found.get(line.node.args[0]) if line.node.target is operator.getitem else None  # type: ignore[arg-type]
            found[line.node] = (whole[0] if whole else i, i)  # parts are there as soon as the call that gives them
        reads = line.reads
        if line.kind == "move" and line.home in folded:
            reads = folded[line.home].all_input_nodes
        for read in reads:
            home = owner(read)
            if home in found:
                found[home] = (found[home][0], i)
    for node in kept:
        home = owner(node)
        if home in found:
            found[home] = (found[home][0], len(lines))
    return found


def freeing(nodes: list[fx.Node], start: int) -> list[fx.Node]:
    """The nodes from `start` on, so ordered that one which frees more memory than it takes runs as soon as it can:
    the gradient of a weight before that of the layer's input, since it is the last to read the input."""
    left = nodes[start:]
    done, waiting = set(nodes[:start]), set(left)
    readers: dict[fx.Node, dict[fx.Node, None]] = {}
    for node in left:
        for read in node.all_input_nodes:
            if owner(node) is node and node.target is not operator.getitem:
                readers.setdefault(owner(read), {})[node] = None
    order: list[fx.Node] = []

    def run(node: fx.Node) -> None:
        """Add a node, behind the views that it reads, with the parts that it gives."""
        if node not in waiting:
            return
        waiting.discard(node)
        for read in node.all_input_nodes:
            run(read)
        order.append(node)
        done.add(node)
        for part in node.users:
            if part.target is operator.getitem:
                run(part)
        for read in node.all_input_nodes:
            readers.get(owner(read), {}).pop(node, None)

    def ready(node: fx.Node) -> bool:
        return all(owner(n) in done or owner(n).op == "placeholder" for n in node.all_input_nodes)

    def gain(node: fx.Node) -> int:
        """The bytes that it frees less those that it takes."""
        freed = {owner(n) for n in node.all_input_nodes if list(readers.get(owner(n), ())) == [node]}
        return sum(_size(n) for n in freed if n.op != "placeholder") - _size(node)

    for node in left:
        run(node)
        stack = [node]
        while stack:
            last = stack.pop()
            touched = [*operations(last), *(r for n in last.all_input_nodes for r in readers.get(owner(n), ()))]
            for candidate in dict.fromkeys(touched):
                if candidate in waiting and ready(candidate) and gain(candidate) > 0:
                    run(candidate)
                    stack.append(candidate)
    return order


def _size(node: fx.Node) -> int:
    value = node.meta.get("val")
    if isinstance(value, tuple | list):
        return sum(size_of(v) for v in value if isinstance(v, torch.Tensor))
    return size_of(value) if isinstance(value, torch.Tensor) else 0
