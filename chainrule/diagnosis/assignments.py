"""Which hand-written gradient was computed from which, and on which line each was assigned."""

from __future__ import annotations

import dis
import inspect

from torch import fx

from chainrule.diagnosis.handwritten import Handwritten
from chainrule.program import Program
from chainrule.run import needed


class Assignments:
    """The gradients that a person wrote, in the order of writing; one tensor may serve two of them."""

    def __init__(self, hand: Handwritten, base: Program, names: dict[fx.Node, str]) -> None:
        self.hand, self.base, self.names = hand, base, names
        self.position = {node: i for i, node in enumerate(hand.recorder.graph.nodes)}
        self.sharing: dict[fx.Node, list[fx.Node]] = {}  # gradient node -> the values that share it, the first first
        for value in sorted(hand.nodes, key=lambda v: -self.position[v]):
            self.sharing.setdefault(hand.nodes[value], []).append(value)

    def in_order(self) -> list[fx.Node]:
        return sorted(self.hand.nodes, key=lambda v: (self.position[self.hand.nodes[v]], -self.position[v]))

    def computed_from(self, value: fx.Node) -> list[fx.Node]:
        """The values whose hand-written gradients this one reads, nearest only."""
        node = self.hand.nodes[value]
        sharing = self.sharing[node]
        if sharing[0] is not value:  # `l1.g = l2.g`: the same tensor under a second name
            return [sharing[sharing.index(value) - 1]]
        found, seen, stack = [], set(), list(node.all_input_nodes)
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.sharing and current is not node:
                found.append(self._the_one_meant(value, self.sharing[current]))
            else:
                stack.extend(current.all_input_nodes)
        return found

    def _the_one_meant(self, value: fx.Node, candidates: list[fx.Node]) -> fx.Node:
        """Of values that share a gradient tensor, the one that the right gradient of `value` reads."""
        gradient = self.base.gradients.get(value)
        if len(candidates) == 1 or gradient is None:
            return candidates[0]
        read = set(needed([gradient]))
        used = [c for c in candidates if self.base.gradients.get(c) in read]
        return used[-1] if used else candidates[0]

    def place(self, value: fx.Node) -> tuple[int | None, str | None]:
        """Line and file of the assignment."""
        node = self.hand.nodes[value]
        site = node.meta.get("site")
        if self.sharing[node][0] is not value or site is None:
            line = self._assigned_at(self.names[value])
            if line is not None:
                return line
        return (site.line, site.file) if site else (None, None)

    def _assigned_at(self, name: str) -> tuple[int, str] | None:
        """The only line of the person's function that sets `name.g`, read from its bytecode."""
        code = self.hand.code
        methods = [getattr(type(code), m, None) for m in ("backward", "bwd")]
        functions = [f for f in (code, *methods) if inspect.isfunction(f) or inspect.ismethod(f)]
        found = []
        for function in functions:
            before = None
            for instruction in dis.get_instructions(function.__code__):
                sets = instruction.opname == "STORE_ATTR" and instruction.argval == "g"
                if sets and before is not None and before.argval == name.split(".")[-1] and instruction.positions:
                    found.append((instruction.positions.lineno, function.__code__.co_filename))
                before = instruction
        line, file = found[0] if len(found) == 1 else (None, "")
        return (line, file) if line is not None else None
