"""Where everything lies before a step runs: what is known, how each product is computed, which memory a value has."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.memory import Arena, Interval, arranged, most_alive, owner, size_of, transposes
from chainrule.compiling.straight import products
from chainrule.compiling.straight.moves import Moves
from chainrule.compiling.straight.schedule import Line, lives, scheduled
from chainrule.compiling.straight.spelling import COPIES, Names, overwritable, spelling

LARGE = 1 << 17  # bytes: a value of this size is allocated when it is made, so that its memory is free after it
RESERVED = (
    "torch", "step", "isfinite", "stop", "arena", "optimiser", "lr", "taken", "sgd_", "adam_", "move", "laid_as", "_", *products.SPACE
)  # fmt: skip

COPYING = {  # kernels that copy their first operand
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default, torch.ops.aten.logsumexp.default
}  # fmt: skip


@dataclass(frozen=True)
class Buffer:
    """Memory that a value lies in: at `offset` of the arena, or (None) allocated by its line."""

    name: str
    shape: tuple[int, ...]
    size: int
    offset: int | None
    first: int
    last: int


@dataclass(frozen=True)
class Memory:
    """The bytes that a step needs beside parameters and batch."""

    arena: int  # held between steps
    constants: int  # likewise
    allocated: int  # the most at one time within a step
    buffers: tuple[Buffer, ...] = ()

    @property
    def held(self) -> int:
        """Between steps."""
        return self.arena + self.constants

    @property
    def peak(self) -> int:
        """The most at one time."""
        return self.held + self.allocated


class Arrangement:
    """The lines of a step in order, and the place of each value. `moves` says how parameters move; without it,
    gradients are returned."""

    reserved: tuple[str, ...] = ()  # more names that the code uses

    def __init__(self, lowered: Lowered, moves: Moves | None) -> None:
        self.lowered, self.moves = lowered, moves
        self.names = Names()
        self.functions: dict[str, str] = {}  # the names of operations in the code
        for name in (*RESERVED, *self.reserved):
            self.names.fresh(name)
        for node in lowered.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload):
                self.functions.setdefault(spelling(node.target).name, "")
        self.functions = {name: self.names.fresh(name) for name in self.functions}
        if moves is not None:
            moves.name = self.names.fresh
        self.text_of: dict[fx.Node, str] = {}
        self.tensors: dict[fx.Node, torch.Tensor] = {}  # what is known before the step runs
        self.space: dict[str, Any] = {"torch": torch}
        self.at: dict[fx.Node, str] = {}  # "arena", "allocated" or "over": in the memory of what it overwrites
        self.over: dict[fx.Node, fx.Node] = {}
        self.choices: list[tuple[str, products.Choice]] = []
        self.ways: dict[fx.Node, products.Way] = {}
        self._inputs()
        constants = self._constants()
        self.folded = moves.folded(lowered) if moves else {}
        self._choose_ways(self.folded)
        self.together = moves.together(lowered) - set(self.folded) if moves else set()
        self.lines = scheduled(lowered, moves is not None, self.folded, self.together)
        self.outputs = {lowered.loss} | (set() if moves else set(lowered.gradients.values()))
        self.alive = lives(self.lines, self.folded, self.outputs)
        self._place(self.lines, self.alive, self.outputs)
        self._name_groups()
        self.arena, self.memory = self._memory(constants)

    def _memory(self, constants: int) -> tuple[Arena, Memory]:
        intervals = self._intervals(self.alive)
        arena = arranged(i for i in intervals if self.at[i.node] == "arena")
        fresh = [i for i in intervals if self.at[i.node] == "allocated"] + self._copied(self.alive)
        drawn = {n: size_of(n.meta["val"]) for n in self.lowered.drawn}  # held, and made anew, one by one, at first
        fresh += [Interval(n, size, -i, -i) for i, (n, size) in enumerate(drawn.items(), 1)]
        buffers = (
            Buffer(
                self._name(i.node), tuple(i.node.meta["val"].shape), i.size, arena.offsets.get(i.node), i.first, i.last
            )
            for i in sorted(intervals, key=lambda i: i.first)
        )
        return arena, Memory(arena.size, constants + sum(drawn.values()), most_alive(fresh), tuple(buffers))

    # -- what is known before ----------------------------------------------------------------------

    def _name(self, node: fx.Node) -> str:
        if node not in self.text_of:
            self.text_of[node] = self.names.fresh(self.lowered.names.get(node) or self._kind(node))
        return self.text_of[node]

    def _kind(self, node: fx.Node) -> str:
        """A word for a value without a name: what it is the transpose of, or the operation that makes it."""
        source: Any = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and transposes(node):
            return f"{self._name(source)}_t"
        call: Any = node.args[0] if node.target is operator.getitem else node
        if not isinstance(call.target, torch._ops.OpOverload):
            return node.name
        return spelling(call.target).name.strip("_").removeprefix("native_").removesuffix("_for_cpu")

    def _keep(self, node: fx.Node, tensor: torch.Tensor) -> None:
        """A tensor that the code refers to by name."""
        self.tensors[node] = tensor
        self.space[self._name(node)] = tensor

    def _inputs(self) -> None:
        for node in self.lowered.batch:
            if node is not None:
                self._name(node)
        for node, tensor in self.lowered.held.items():
            self._keep(node, tensor.detach())
        for node in self.lowered.drawn:
            like = node.meta["val"]
            self._keep(node, torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device))
        for node in self.lowered.graph.nodes:
            if "lies in" in node.meta:
                self._keep(node, node.meta["lies in"])

    def _constants(self) -> int:
        """Compute what depends on no input, once."""
        known: dict[fx.Node, Any] = {}
        for node in self.lowered.graph.nodes:
            random = (
                isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
            )
            if node.op == "call_function" and not random and all(n in known for n in node.all_input_nodes):
                args = fx.map_arg(node.args, known.__getitem__)
                with torch.no_grad():
                    known[node] = node.target(*args, **fx.map_arg(node.kwargs, known.__getitem__))
        used = [n for n in known if any(u not in known for u in n.users) and isinstance(known[n], torch.Tensor)]
        for node in used:
            self._keep(node, known[node])
        self.constant = set(known)
        return sum(size_of(known[n]) for n in used)

    def _choose_ways(self, folded: dict[fx.Node, fx.Node]) -> None:
        """Measure the ways of each product, and of each move that a product could be folded into."""
        homes = {node: p for p, node in folded.items()}
        for node in self.lowered.graph.nodes:
            found = products.operands(node)
            if found is None or node in self.constant:
                continue
            a, b, bias = (n.meta["val"] if n is not None else None for n in found)
            with torch.no_grad():
                choice = products.fastest(a, b, bias)  # type: ignore[arg-type]
            if any(user.op == "call_function" for user in node.users) or (self.moves and not self.moves.adds):
                choice = choice.in_rows()
            self.ways[node] = choice.way
            if node in homes and choice.way is not products.MM:
                del folded[homes[node]]  # a faster product, and then the move
            self.choices.append((self._name(node), choice))

    # -- where values lie ----------------------------------------------------------------------------

    def _place(self, lines: list[Line], alive: dict[fx.Node, tuple[int, int]], outputs: set[fx.Node]) -> None:
        returned = {owner(n) for n in outputs}
        for i, line in enumerate(lines):
            node = line.node
            if line.kind != "operation" or node is None or node in self.constant or owner(node) is not node:
                continue
            if node in self.tensors:
                continue
            overwritten = self._dying_operand(node, i, alive, returned)
            if overwritten is not None:
                self.at[node], self.over[node] = "over", overwritten
                root = self._root(owner(overwritten))
                alive[root] = (alive[root][0], max(alive[root][1], alive[node][1]))
            elif node not in returned and self._writes_into_memory(node):
                self.at[node] = "arena"
            elif isinstance(node.meta.get("val"), torch.Tensor):
                self.at[node] = "allocated"

    def _name_groups(self) -> None:
        """Values that are written over one another have one name: the person's, where one of them has one."""
        groups: dict[fx.Node, list[fx.Node]] = {}
        for node, first in self.over.items():
            while first in self.over:
                first = self.over[first]
            groups.setdefault(first, []).append(node)
        for root, members in groups.items():
            named = next((n for n in (*reversed(members), root) if n in self.lowered.names), root)
            name = self._name(named)
            for node in (root, *members):
                self.text_of[node] = name

    def _root(self, node: fx.Node) -> fx.Node:
        """The value whose memory this one was written over."""
        while node in self.over:
            node = owner(self.over[node])
        return node

    def _writes_into_memory(self, node: fx.Node) -> bool:
        if not isinstance(node.meta["val"], torch.Tensor) or size_of(node.meta["val"]) >= LARGE:
            return False
        if torch._debug_has_internal_overlap(_blank(node.meta["val"])):
            return False
        if node in self.ways:
            return self.ways[node].into
        target: Any = node.target
        if not isinstance(target, torch._ops.OpOverload):
            return False
        if spelling(target).rest and node.meta["val"].shape != node.args[0].meta["val"].shape:  # type: ignore[union-attr]
            return False  # a loss: torch sizes the memory as if it were not reduced, and warns
        return target in COPIES or spelling(target).out is not None

    def _dying_operand(
        self, node: fx.Node, i: int, alive: dict[fx.Node, tuple[int, int]], returned: set[fx.Node]
    ) -> fx.Node | None:
        """An operand of the same layout that nobody reads after this operation, which may write over it."""
        value: Any = node.meta.get("val")
        for operand in overwritable(node):
            home = owner(operand)
            root = self._root(home)
            given = operand.meta["val"]
            ours = self.at.get(root) in ("arena", "allocated") and (
                node not in returned or self.at[root] == "allocated"
            )
            same = given.shape == value.shape and given.stride() == value.stride() and given.dtype == value.dtype
            same = same and torch._debug_has_internal_overlap(_blank(given)) == 0
            dies = max(alive.get(home, (0, -1))[1], alive.get(root, (0, -1))[1]) == i
            alone = all(o is operand or self._root(owner(o)) is not root for o in node.all_input_nodes)
            if ours and same and dies and alone and size_of(given) == size_of(root.meta["val"]):
                return operand
        return None

    def _intervals(self, alive: dict[fx.Node, tuple[int, int]]) -> list[Interval]:
        found = [
            Interval(node, size_of(node.meta["val"]), *alive[node])
            for node, where in self.at.items()
            if where != "over" and isinstance(node.meta.get("val"), torch.Tensor)
        ]
        return found

    def _copied(self, alive: dict[fx.Node, tuple[int, int]]) -> list[Interval]:
        """What is copied while a line runs: the left operand of oneDNN, unless it lies in rows; gradients that lie
        otherwise than their parameter."""
        found = []
        for node, (line, _) in alive.items():
            copied: Any = None
            if "needs" in node.meta:
                found.append(Interval(node, node.meta["needs"], line, line))
            if node in self.ways and not self.ways[node].into:
                a, b, _ = products.operands(node)  # type: ignore[misc]
                left, step = (b, 0) if self.ways[node].transposed else (a, 1)
                copied = left if left.meta["val"].stride(step) != 1 else None
            elif node.target in COPYING:
                copied = node.args[0]
            if copied is not None:
                found.append(Interval(copied, size_of(copied.meta["val"]), line, line))
        for i, moving in enumerate(self.lines):
            p, gradient = moving.home, moving.node
            if moving.kind == "move" and self.moves and p and gradient and p not in self.folded:
                found.append(Interval(p, self.moves.needs(p, gradient), i, i))
        return found


def _blank(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(value.shape, value.stride(), device="meta")
