"""What lies between large products becomes one C function each: an island between calls of libraries."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.compiling.c import CStep, compile_c
from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.graph.whole import hold_constants
from chainrule.compiling.memory import operations, owner
from chainrule.compiling.narrow import faster_in_c

aten = torch.ops.aten

HELD = 1 << 21  # bytes: memory to work in of less than this is held between calls, and shared
LARGE = 1e7  # multiplications: a product of this size is left to a library


def multiplications(node: fx.Node) -> float:
    """How many a matrix product or a convolution takes; 0 for anything else."""
    values: list[Any] = [a.meta["val"] if isinstance(a, fx.Node) else None for a in node.args]
    if node.target is aten.addmm.default:
        return float(values[1].numel() * values[2].shape[-1])
    if node.target in (aten.mm.default, aten.bmm.default):
        return float(values[0].numel() * values[1].shape[-1])
    if node.target is aten.convolution.default:
        return float(node.meta["val"].numel() * values[1][0].numel())
    if node.target is aten.convolution_backward.default:
        return float(values[0].numel() * values[2][0].numel())
    return 0.0


def left_to_a_library(node: fx.Node) -> bool:
    """Whether a library's kernel for the operation is better than a loop."""
    return multiplications(node) >= LARGE and not faster_in_c(node)


def with_islands(lowered: Lowered) -> tuple[Lowered, list[str], int]:
    """`lowered` with islands in place of what they compute, the C of each, and the bytes held for them to work in.

    Raises NoSpelling, NoCompiler: see `compile_c`."""
    return _Builder(lowered).built()


class _Builder:
    def __init__(self, lowered: Lowered) -> None:
        self.lowered, self.graph = lowered, fx.Graph()
        self.at: dict[fx.Node, fx.Node] = {}  # the node of the new graph for each old one
        self.sources: list[str] = []
        self.calls: list[tuple[fx.Node, CStep]] = []
        lowered.held |= hold_constants(lowered.graph)
        self.constant = {n for n in lowered.graph.nodes if n.op == "call_function" and not n.all_input_nodes}
        self.left = [n for n in lowered.graph.nodes if n.op == "call_function" and self._computes(n)]
        self.outputs = set(lowered.graph.output_node().args[0])  # type: ignore[arg-type]
        self.early = _of_forward_alone(lowered)

    def _computes(self, node: fx.Node) -> bool:
        return owner(node) is node and node.target is not operator.getitem and node not in self.constant

    def built(self) -> tuple[Lowered, list[str], int]:
        for node in self.lowered.graph.nodes:
            if node.op == "placeholder":
                self.at[node] = self.graph.node_copy(node)
        while self.left:
            island = self._island()
            if island:
                self._close(island)
            node = next((n for n in self.left if self._ready(n, set())), None)
            if node is not None:
                self._copy(node)
                self.left.remove(node)
        results = [self._there(n) for n in self.lowered.graph.output_node().args[0]]  # type: ignore[union-attr]
        self.graph.output(results)
        size = max((compiled.arena for _, compiled in self.calls if compiled.arena < HELD), default=0)
        scratch = torch.empty(size, dtype=torch.uint8)
        for number, (call, compiled) in enumerate(self.calls, 1):
            fresh = compiled.arena >= HELD
            call.target = _named(compiled.bind({}, scratch, fresh), number)
            if fresh:
                call.meta["needs"] = compiled.arena
        return self.lowered.carried(self.graph, self.at), self.sources, size

    def _ready(self, node: fx.Node, also: set[fx.Node]) -> bool:
        makers = (_maker(n) for n in node.all_input_nodes)
        return all(m in self.at or m in also or m in self.constant for m in makers)

    def _island(self) -> list[fx.Node]:
        """All that can be computed now without a library, in order."""
        found: dict[fx.Node, None] = {}
        known: set[fx.Node] = set()
        going = True
        while going:
            going = False
            for node in self.left:
                if node in found or left_to_a_library(node) or not self._ready(node, known):
                    continue
                if node in self.early and not self._awaited(node, known):
                    continue
                found[node] = None
                known.add(node)
                going = True
        return sorted(found, key=self.left.index) if found else []

    def _awaited(self, node: fx.Node, known: set[fx.Node]) -> bool:
        """Whether a reader waits for this value alone: what is computed again is not to be there too soon."""
        return any(owner(o) is node for o in self.outputs) or any(
            self._ready(user, known | {node}) for user in operations(node)
        )

    def _close(self, island: list[fx.Node]) -> None:
        """Compile an island, and put a call of it into the graph."""
        inside = set(island)
        part = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        given: dict[fx.Node, fx.Node] = {}

        def inner(node: fx.Node) -> fx.Node:
            if node in copies:
                return copies[node]
            if _maker(node) in inside or owner(node) is not node or node in self.constant:
                copies[node] = part.node_copy(node, inner)
            else:
                copies[node] = given[node] = part.placeholder(f"given_{len(given)}")
                given[node].meta["val"] = node.meta["val"]
            return copies[node]

        for node in island:
            for read in node.all_input_nodes:
                base = owner(read)
                if _maker(base) not in inside and base not in self.constant:
                    inner(base)  # placeholders come first in a graph
        for node in island:
            inner(node)
        results = [n for n in _values(island) if self._wanted(n, inside)]
        orders = [_order(n.meta["val"]) for n in results]
        outputs = [_permuted(part, inner(n), order) for n, order in zip(results, orders)]
        part.output(outputs)
        compiled = compile_c(part, outputs, {})
        self.sources.append(compiled.source)
        placeholders = [n for n in part.nodes if n.op == "placeholder"]
        sources = {copy: node for node, copy in given.items()}
        call = self.graph.call_function(print, tuple(self._there(sources[p]) for p in placeholders))
        self.calls.append((call, compiled))
        call.meta["val"] = tuple(n.meta["val"].new_empty(n.meta["val"].shape) for n in outputs)
        for i, (node, order) in enumerate(zip(results, orders)):
            made = self.graph.call_function(operator.getitem, (call, i))
            made.meta["val"] = call.meta["val"][i]
            self.at[node] = _permuted(self.graph, made, [order.index(axis) for axis in range(len(order))])
        for node in island:
            self.at.setdefault(node, call)
            self.left.remove(node)

    def _wanted(self, node: fx.Node, inside: set[fx.Node]) -> bool:
        """Whether something outside reads a value, or a view of it."""
        return any(owner(o) is node for o in self.outputs) or any(u not in inside for u in operations(node))

    def _there(self, node: Any) -> fx.Node:
        """The new node for an old one; views are made again."""
        if node not in self.at:
            self._copy(node)
        return self.at[node]

    def _copy(self, node: fx.Node) -> None:
        self.at[node] = self.graph.node_copy(node, self._there)


def _order(value: torch.Tensor) -> list[int]:
    """The axes in the order in which they lie in memory: C gives its results in rows."""
    strides = value.stride()
    return sorted(range(value.ndim), key=lambda axis: (-strides[axis], axis))


def _permuted(graph: fx.Graph, node: fx.Node, order: list[int]) -> fx.Node:
    if order == sorted(order):
        return node
    permuted = graph.call_function(aten.permute.default, (node, order))
    permuted.meta["val"] = node.meta["val"].permute(order)
    return permuted


def _named(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    function.__name__ = f"island_{number}"
    return function


def _maker(node: fx.Node) -> fx.Node:
    """The operation that a value comes from, through views and parts."""
    while owner(node) is not node or node.target is operator.getitem:
        node = owner(node) if owner(node) is not node else node.args[0]  # type: ignore[assignment]
    return node


def _values(island: list[fx.Node]) -> list[fx.Node]:
    """The tensors that operations make: parts, where one makes several."""
    found: list[fx.Node] = []
    for node in island:
        parts = [u for u in node.users if u.target is operator.getitem and owner(u) is u]
        found += parts if isinstance(node.meta["val"], tuple | list) else [node]
    return found


def _of_forward_alone(lowered: Lowered) -> set[fx.Node]:
    """What the backward pass computes from values of the forward pass alone."""
    late: set[fx.Node] = {lowered.loss}
    found: set[fx.Node] = set()
    for node in lowered.graph.nodes:
        if node.op != "call_function" or node not in lowered.backward:
            continue
        if any(n in lowered.backward and n not in found for n in node.all_input_nodes) or late & set(
            node.all_input_nodes
        ):
            continue
        if node.all_input_nodes:
            found.add(node)
    return found
