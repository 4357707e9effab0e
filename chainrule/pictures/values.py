"""Which values of a program are boxes of its picture, and what is left out of a large one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.show.layers import Layers, layers_of
from chainrule.show.layout import Layout, Line

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

MOST = 30  # boxes; a larger program is folded


@dataclass(eq=False)
class Value:
    """A named value: what is said in its box, and the values that its operation reads."""

    name: str
    shape: str
    code: str  # the operation; empty for an input
    node: fx.Node | None = None
    named: bool = True  # by the person
    gradients: list[str] = field(default_factory=list)  # the lines of the backward pass that end in this value
    reads: dict[Value, bool] = field(default_factory=dict)  # whether a gradient goes back to each
    times: int = 1  # how many layers it stands for
    is_output: bool = False


class Graph:
    """The values of a derivation in the order of the program, at most about `most` of them; `notes` say what is
    left out."""

    def __init__(self, d: Derivation, most: int = MOST) -> None:
        self.d, self.layout, self.notes = d, Layout(d.program, dotted=True, width=10**9), list[str]()
        self.with_gradient = set(d._base.gradients)
        self.values = self._build([])
        if len(self.values) > most and (stacks := layers_of(d.program)):
            self.values = self._build(stacks)
            folded = [f"{s.count} layers {s.prefix}{s.numbers[0]} to {s.prefix}{s.numbers[-1]}" for s in stacks]
            self.notes.append(f"of the {' and the '.join(folded)}, which do the same, one is drawn")
        if len(self.values) > most:
            self._leave_out(
                [v for v in self.values if not v.code and len(self._readers(v)) <= 1],
                "inputs",
                "with their gradients only named in the operations",
            )
        if len(self.values) > most:
            self._leave_out(self._least()[: len(self.values) - most], "values without a name", "left out")
        if len(self.values) > most:
            self._cut_the_middle(most)

    # -- values ----------------------------------------------------------------------------------

    def _build(self, stacks: list[Layers]) -> list[Value]:
        stands_for, times = _folded(stacks)
        program, found = self.d.program, dict[fx.Node, Value]()
        for node in self.layout.live:
            phase_and_kind = node.meta["phase"] == "forward" and isinstance(node.meta["val"], torch.Tensor)
            if not phase_and_kind or node not in self.layout.shown or node is program.upstream or node in stands_for:
                continue
            found[node] = self._value(node, times.get(node, 1))
        for node, value in found.items():
            for read, passes in self._reads(node).items():
                source = found.get(stands_for.get(read, read))
                if source is not None and source is not value:
                    value.reads[source] = passes or value.reads.get(source, False)
        self._write_gradients(found, stands_for)
        return list(found.values())

    def _value(self, node: fx.Node, times: int) -> Value:
        code = "" if node.op == "placeholder" else self.layout.python.expression(node)[0]
        if node.meta["operation"] == "part" and isinstance(node.args[0], fx.Node):
            code = f"{self.layout.python.expression(node.args[0])[0]}[{node.args[1]}]"
        name, shape = self.layout.variables[node], str(tuple(node.meta["val"].shape))
        named, output = bool(node.meta.get("name")), node is self.d.program.output
        return Value(name, shape, code, node, named, times=times, is_output=output)

    def _reads(self, node: fx.Node) -> dict[fx.Node, bool]:
        """The values that the line of `node` reads, and whether its gradient reaches them."""
        found: dict[fx.Node, bool] = {}
        passes = self._has_gradient(node)
        for read in node.all_input_nodes:
            if isinstance(read.meta["val"], int | float | torch.Size):
                continue  # a size is read, and no element
            if read in self.layout.shown and isinstance(read.meta["val"], torch.Tensor):
                inside = {read: self._has_gradient(read)}
            else:
                inside = self._reads(read)
            for value, through in inside.items():
                found[value] = (passes and through) or found.get(value, False)
        return found

    def _has_gradient(self, node: fx.Node) -> bool:
        parts = [u for u in node.users if u.meta["operation"] == "part"]
        return node.meta.get("base") in self.with_gradient or any(
            p.meta.get("base") in self.with_gradient for p in parts
        )

    def _write_gradients(self, found: dict[fx.Node, Value], stands_for: dict[fx.Node, fx.Node]) -> None:
        """Each line of the backward pass in the box of its value; a temporary in that of the gradient it is for."""
        program = self.d.program
        box: dict[fx.Node, Value | None] = {}
        following: Value | None = None
        for line in reversed([li for li in self.layout.lines if li.phase == "backward"]):
            dropped = line.of in stands_for
            value = found.get(line.of) if line.of is not None else None
            if value is None and not dropped:
                value = next((box[n] for n in self._users(line) if n in box), following)
            following = value
            if not line.alias:
                box[line.node] = value
            if value is not None and not dropped:
                value.gradients.insert(0, line.text)
        if program.upstream is not None and program.output in found and program.upstream in self.layout.variables:
            found[program.output].gradients.insert(0, f"{self.layout.variables[program.upstream]} is given")

    def _users(self, line: Line) -> list[fx.Node]:
        """The lines that read a line of the backward pass, nearest first."""
        found, stack = dict[fx.Node, None](), [line.node]
        while stack:
            for user in stack.pop().users:
                if user in self.layout.shown and user.meta["operation"] != "part":
                    found[user] = None
                else:
                    stack.append(user)
        return [li.node for li in self.layout.lines if li.node in found]

    # -- large programs --------------------------------------------------------------------------

    def _readers(self, value: Value) -> list[Value]:
        return [v for v in self.values if value in v.reads]

    def _least(self) -> list[Value]:
        """The values that the person gave no name, those first that nobody gave one and that few lines meet at."""
        nameless = [v for v in self.values if v.code and not v.named and not v.is_output]
        met = {value: len(value.reads) + len(self._readers(value)) for value in nameless}
        return sorted(nameless, key=lambda v: ("hint" in v.node.meta if v.node else False, met[v]))

    def _leave_out(self, dropped: Iterable[Value], what: str, how: str) -> None:
        """Take values away; who read them reads what they read."""
        gone = [v for v in dropped if not v.is_output]
        for value in gone:
            for reader in self._readers(value):
                passes = reader.reads.pop(value)
                for source, further in value.reads.items():
                    reader.reads[source] = (passes and further) or reader.reads.get(source, False)
            self.values.remove(value)
        if gone:
            self.notes.append(f"{len(gone):,} {what} {how}")

    def _cut_the_middle(self, most: int) -> None:
        """One box for all values but the first and the last ones."""
        head = most // 2
        middle = self.values[head : len(self.values) - (most - head - 1)]
        box = Value(f"{len(middle):,} values left out", "", "", named=False)
        box.code = "…"
        inside = set(middle)
        for value in [*middle, *self.values]:
            for source in [s for s in value.reads if s in inside or value in inside]:
                passes = value.reads.pop(source) if value not in inside else value.reads[source]
                reader, read = box if value in inside else value, box if source in inside else source
                if reader is not read:
                    reader.reads[read] = passes or reader.reads.get(read, False)
        self.values = [*self.values[:head], box, *self.values[head + len(middle) :]]
        self.notes.append(f"{len(middle):,} values in the middle left out")


def _folded(stacks: list[Layers]) -> tuple[dict[fx.Node, fx.Node], dict[fx.Node, int]]:
    """For each value of a later layer, that of the first one that stands for it; how many those stand for."""
    stands_for: dict[fx.Node, fx.Node] = {}
    times: dict[fx.Node, int] = {}
    for stack in stacks:
        first = [line.node for line in stack.lines(0)[0]]
        columns = [[first[k], *(stack.lines(t)[0][k].node for t in range(1, stack.count))] for k in range(len(first))]
        columns += [*stack.ahead.own, *(list(nodes) for nodes in zip(*stack.drawn, strict=True))]
        for nodes in columns:
            times[nodes[0]] = stack.count
            stands_for |= dict.fromkeys(nodes[1:], nodes[0])
    return stands_for, times
