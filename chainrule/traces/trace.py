"""Every step of a derivation with its code, shape and value, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.run import run
from chainrule.show import table
from chainrule.show.layout import Layout, Line
from chainrule.show.names import same_gradient
from chainrule.traces.summary import WHOLE, block, in_words, small, summary

if TYPE_CHECKING:
    from chainrule.derivation import Derivation
    from chainrule.traces.beside import Beside

_HEAD = ["step", "shape", "value"]


@dataclass(eq=False)
class Step:
    """One line of the program and the value that it gave."""

    phase: str  # "input", "forward" or "backward"
    name: str
    code: str
    shape: tuple[int, ...]
    value: torch.Tensor
    line: int | None  # of the person's code; of a gradient, that of the value it is the gradient of
    comes_from: tuple[Step, ...] = field(default=(), repr=False)  # the steps that its code reads
    used_by: tuple[Step, ...] = field(default=(), repr=False)  # the steps that read it

    @property
    def at(self) -> str:
        """The name with its place: "l1 (line 7)", "w1 (input)"."""
        place = "input" if self.phase == "input" else f"line {self.line}" if self.line else self.phase
        return f"{self.name} ({place})"

    def __repr__(self) -> str:
        return f"<Step {self.at} {self.shape}>"

    def __str__(self) -> str:
        line = f"  # line {self.line}" if self.line else ""
        uses = [f"{step.at}: {step.code}" for step in self.used_by]
        used = "\n".join(f"    {use}" for use in uses) if uses else " nothing"
        return "\n".join(
            [
                f"{self.code}  {self.shape}{line}",
                *(f"  {text}" for text in shown(self.value).split("\n")),
                f"  comes from: {', '.join(step.at for step in self.comes_from) or 'nothing; it is given'}",
                f"  used by:{' nothing' if not uses else chr(10) + used}",
            ]
        )

    def _repr_html_(self) -> str:
        return f"<pre>{table.escape(str(self))}</pre>"


def shown(value: torch.Tensor) -> str:
    """A value for itself: whole if it is small, else in words, with its corners."""
    if value.numel() <= WHOLE and value.ndim <= 2:
        return small(value)
    return f"{in_words(value)}\n{block(value)}" if value.numel() else "no elements"


class Trace:
    """The steps of a derivation, which `trace[name]` finds; `str()` is a table with small values whole."""

    def __init__(self, d: Derivation, update: float | None = None) -> None:
        """With `update`, the values are those of the run after one gradient step of that size."""
        d.values()
        self._layout = Layout(d.program, dotted=True)
        values = {n: n.meta["val"] for n in d.program.graph.nodes} if update is None else _updated(d, update)
        self.steps: list[Step] = []
        self._nodes: list[fx.Node] = []
        self._of: dict[fx.Node, Step] = {}
        names = self._layout.variables
        for node in d.program.inputs:
            if node in names and isinstance(values.get(node), torch.Tensor):
                self._add(Line(names[node], "", node, "input"), values[node])
        upstream = d.program.upstream
        if upstream is not None and upstream in names:
            self._add(Line(names[upstream], "", upstream, "input"), values[upstream])
        several: dict[fx.Node, Line] = {}
        for line in self._layout.lines:
            if line.phase in ("forward", "backward") and isinstance(values[line.node], torch.Tensor):
                self._add(line, values[line.node])
            elif line.phase in ("forward", "backward"):
                several[line.node] = line
            elif line.phase == "unpacked" and isinstance(line.node.args[0], fx.Node):
                whole = several[line.node.args[0]]  # `a, b = ...`: a step for each
                one = Line(names[line.node], f"{whole.code}[{line.node.args[1]}]", line.node, whole.phase)
                self._add(one, values[line.node])
        self._connect()

    def _add(self, line: Line, value: torch.Tensor) -> None:
        of = self._layout.owners.get(line.node) if line.of is None else line.of
        site = (of if of is not None and line.phase == "backward" else line.node).meta.get("site")
        code = line.target if line.phase == "input" else line.text
        number = site.line if site and line.phase != "input" else None
        step = Step(line.phase, line.target, code, tuple(value.shape), value.detach(), number)
        self.steps.append(step)
        self._nodes.append(line.node)
        if not line.alias or line.node not in self._of:
            self._of[line.node] = step

    def _connect(self) -> None:
        """Which steps each one reads: of another name for a value, the step of that value."""
        users: dict[Step, list[Step]] = {step: [] for step in self.steps}
        for step, node in zip(self.steps, self._nodes, strict=True):
            named = [node] if self._of[node] is not step else reads(self._layout, node)
            step.comes_from = tuple(self._of[n] for n in named if n in self._of)
            for read in step.comes_from:
                users[read].append(step)
        for step in self.steps:
            step.used_by = tuple(users[step])

    def beside(self, other: Trace) -> Beside:
        """This run and another of the same program, side by side; see `Beside`."""
        from chainrule.traces.beside import Beside

        return Beside(self, other)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Step:
        """The step of that name; of a gradient that is also another value's, the step that gives both."""
        for step in self.steps:
            if step.name == name:
                return step
        if (other := same_gradient(self._layout, name)) is not None and other in self:
            return self[other]
        raise ChainruleError(f"no step is named {name!r}; there are {', '.join(s.name for s in self.steps)}")

    def __contains__(self, name: str) -> bool:
        return any(step.name == name for step in self.steps)

    def rows(self) -> list[list[str]]:
        """Code, shape and value of each step."""
        return [[s.code, str(s.shape), summary(s.value)] for s in self.steps]

    def __str__(self) -> str:
        lines, phase = table.text(self.rows(), indent="  ").split("\n"), ""
        found = []
        heights = [row[2].count("\n") + 1 for row in self.rows()]
        for step, height in zip(self.steps, heights, strict=True):
            if step.phase != phase:
                phase = step.phase
                found.append(phase)
            found += lines[:height]
            lines = lines[height:]
        return "\n".join(found)

    def _repr_html_(self) -> str:
        return table.html(_HEAD, self.rows())


def reads(layout: Layout, node: fx.Node) -> list[fx.Node]:
    """The values with a line or a name of their own that the line of `node` reads, each once."""
    found: dict[fx.Node, None] = {}
    for read in node.all_input_nodes:
        if read in layout.shown and isinstance(read.meta["val"], torch.Tensor):
            found[read] = None
        else:
            found |= dict.fromkeys(reads(layout, read))
    return list(found)


def _updated(d: Derivation, size: float) -> dict[fx.Node, Any]:
    """The values of the program run again, its inputs moved against the gradients that were asked for."""
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise ChainruleError(f"update is the size of a gradient step, a number such as 0.1, not {size!r}")
    program = d.program
    known = {n: n.meta["val"].detach() for n in program.graph.nodes if n.op == "placeholder"}
    for node in program.wanted:
        gradient = d._gradient(node)
        if gradient is not None:
            known[node] = known[node] - size * gradient
    with torch.no_grad():
        values = run(program.graph.nodes, known)
    for guard in program.guards:
        if not bool(values[guard.node]):
            raise ChainruleError(
                f"after a step of {size:g} the forward pass takes another branch than the one that was recorded; take a "
                "smaller step, or derive again at the new inputs",
                guard.site,
            )
    return values
