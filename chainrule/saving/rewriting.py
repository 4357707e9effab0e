"""Rewrites a program so that its backward pass keeps little.

A value that the backward pass reads is kept, or made again from others that are. Which of them is a minimum cut
between the forward and the backward pass (as in torch's own compiler, He and Yu, 2023, "Transcending
Runtime-Memory Tradeoffs in Checkpointing by being Fusion Aware"). What the backward pass computes from the forward
pass alone, a mask or a shape, may be cut as well, and is then computed and kept by the forward pass.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.program import Program
from chainrule.rules import BOOK
from chainrule.run import needed
from chainrule.saving.cut import Network
from chainrule.saving.prices import NEVER, is_size, is_tensor, price_of_keeping, price_of_making

_OF_A_SHAPE = {torch.zeros_like: "new_zeros", torch.ones_like: "new_ones", torch.full_like: "new_full"}


class Rewriting:
    def __init__(self, program: Program) -> None:
        assert program.upstream is not None
        self.program, self.graph, self.upstream = program, program.graph, program.upstream
        self._read_shapes_alone()
        self.gradients = [program.gradients[w] for w in program.wanted if w in program.gradients]
        self.backward = [n for n in needed(self.gradients) if n.meta["phase"] == "backward"]
        self.late = {self.upstream}  # what waits for the upstream gradient
        for node in self.backward:
            if any(n in self.late for n in node.all_input_nodes):
                self.late.add(node)
        reads = (n for node in self.backward if node in self.late for n in node.all_input_nodes)
        self.reads = [n for n in dict.fromkeys([*reads, *self.gradients]) if n not in self.late]
        self.at: dict[fx.Node, fx.Node] = {}  # what the backward pass reads in the place of a node

    def _read_shapes_alone(self) -> None:
        """zeros_like(x) needs the shape of x, not x."""
        for node in list(self.graph.nodes):
            target: Any = node.target
            like = node.args[0] if target in _OF_A_SHAPE else None
            if node.meta["phase"] != "backward" or node.kwargs or not isinstance(like, fx.Node):
                continue
            if like.meta["phase"] == "forward" and _dtype(like) == _dtype(self.upstream):
                with self.graph.inserting_before(node):
                    shape = self.graph.call_function(getattr, (like, "shape"))
                shape.meta.update(operation="shape", phase="backward", val=like.meta["val"].shape)
                node.meta["like"] = target
                node.op, node.target = "call_method", _OF_A_SHAPE[target]
                node.args = (self.upstream, shape, *node.args[1:])

    def rewrite(self) -> None:
        kept, again = self._cut()
        roots = [self.program.output, *(g.node for g in self.program.guards), *kept]
        for node in needed(roots):
            if node.meta["phase"] == "backward":
                node.meta["phase"] = "forward"
                if is_tensor(node) and _dtype(node) == torch.bool:
                    node.meta.setdefault("hint", "mask")
        self.again = {n for n in again if n.meta["phase"] == "forward"}
        for node in kept:
            if is_tensor(node):
                node.meta["kept"] = True
        self._keep_numbers(kept)
        for node in self.backward:
            if node.meta["phase"] == "backward":
                for used in node.all_input_nodes:
                    node.replace_input_with(used, self._there(used, node))
        for wanted in self.program.wanted:
            if wanted in self.program.gradients:
                self.program.gradients[wanted] = self._there(self.program.gradients[wanted], None)
        self._like_what_is_there()

    # -- the cut ---------------------------------------------------------------------------------

    def _cut(self) -> tuple[list[fx.Node], list[fx.Node]]:
        """The values to keep, and those to make again; each value is an edge, from where it is to where it is kept."""
        network, making = Network(), dict[fx.Node, int | None]()
        for node in self.reads:
            network.add((node, "there"), "backward", NEVER)
        todo = list(self.reads)
        while todo:
            node = todo.pop()
            if node in making:
                continue
            making[node] = price = price_of_making(node)
            network.add((node, "made"), (node, "there"), price_of_keeping(node, self.program.output))
            network.add("forward", (node, "made"), NEVER if price is None else price)
            for used in self._made_from(node) if price is not None else ():
                network.add((used, "there"), (node, "made"), NEVER)
                todo.append(used)
        before = network.above("forward", "backward")
        found: dict[fx.Node, bool] = {}
        todo = list(self.reads)
        while todo:
            node = todo.pop()
            if node not in found:
                found[node] = (node, "made") in before
                todo += [] if found[node] else self._made_from(node)
        return [n for n in self.graph.nodes if found.get(n) is True], [n for n in found if not found[n]]

    def _made_from(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if n not in self.late]

    # -- the program -----------------------------------------------------------------------------

    def _keep_numbers(self, kept: list[fx.Node]) -> None:
        """Each number on ctx; a shape where the backward pass has no other tensor of that shape."""
        tensors = [self.upstream, *filter(is_tensor, kept)]
        known: dict[Any, fx.Node] = {}
        for node in kept:
            if is_tensor(node):
                continue
            same = next((t for t in tensors if is_size(node) and self._root(t) is self._root(node.args[0])), None)
            key = (node.target, node.args) if is_size(node) else node
            if key not in known and same is not None:
                known[key] = self._copy(node, {node.args[0]: same}, "backward", node.next)
            elif key not in known:
                known[key] = self._copy(node, {}, "forward", node.next)
                known[key].meta["kept"] = True
            self.at[node] = known[key]

    def _copy(self, node: fx.Node, at: dict[Any, fx.Node], phase: str, before: fx.Node | None) -> fx.Node:
        with self.graph.inserting_before(before):  # None: at the end
            copy = self.graph.node_copy(node, lambda n: at.get(n, n))
        copy.meta = node.meta | {"phase": phase, "again": node}
        return copy

    def _there(self, node: fx.Node, before: fx.Node | None) -> fx.Node:
        """What the backward pass reads in the place of `node`: a copy, where it makes the value again."""
        if node in self.again and node not in self.at:
            at = {n: self._there(n, before) for n in node.all_input_nodes}
            self.at[node] = self._copy(node, at, "backward", before)
        return self.at.get(node, node)

    def _like_what_is_there(self) -> None:
        """zeros_like(x) after all, where x or another value of its shape is there."""
        for node in self.backward:
            if "like" in node.meta and node.meta["phase"] == "backward":
                shape: Any = node.args[1]
                if shape.meta["phase"] == "backward" and _dtype(shape.args[0]) == _dtype(node):
                    node.op, node.target = "call_function", node.meta["like"]
                    node.args = (shape.args[0], *node.args[2:])

    # -- shapes ----------------------------------------------------------------------------------

    def _root(self, node: Any) -> fx.Node:
        """One of all the values that have the shape of `node` by construction."""
        node = self.program.output if node is self.upstream else node
        while node in self._shaped_as:
            node = self._shaped_as[node]
        return node

    @cached_property
    def _shaped_as(self) -> dict[fx.Node, fx.Node]:
        """For values made element by element, one of their shape."""
        found: dict[fx.Node, fx.Node] = {}
        self.__dict__["_shaped_as"] = found
        for node in self.graph.nodes:
            rule = BOOK.find(node.meta["operation"])
            if node.meta["phase"] != "forward" or rule is None or not rule.elementwise or not is_tensor(node):
                continue
            for used in node.all_input_nodes:
                if is_tensor(used) and used.meta["val"].shape == node.meta["val"].shape:
                    a, b = self._root(node), self._root(used)
                    if a is not b:
                        found[a] = b
        return found


def _dtype(node: Any) -> torch.dtype | None:
    return getattr(node.meta["val"], "dtype", None)
