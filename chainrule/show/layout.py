"""Which values get a line of their own, under which name, and which are written inside another line."""

from __future__ import annotations

import functools
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from chainrule.program import Program
from chainrule.recording import Guard
from chainrule.run import needed
from chainrule.show.holds import statements
from chainrule.show.names import name_of, name_of_size, name_values
from chainrule.show.python import Python

WIDTH = 88
# Reads that cost nothing and say more in place than a name would.
_FREE = frozenset(["T", "mT", "H", "mH", "shape", "shape_entry", "numel", "size", "part"])


@dataclass
class Line:
    """One line of the program: `target = code`."""

    target: str
    code: str
    node: fx.Node
    phase: str  # "given", "forward", "holds", "kept" or "backward"
    of: fx.Node | None = None  # the forward value whose gradient this is
    alias: bool = False  # a gradient that is another value, or stands inside one
    then: Sequence[str] = ()  # statements that write into the value
    comment: str = ""
    room: int = WIDTH  # the widest that a line with its comment may be

    @property
    def text(self) -> str:
        if self.phase in ("given", "holds"):
            return f"assert {self.code}"
        return "\n".join([f"{self.target} = {self.code}", *self.then])

    @property
    def width(self) -> int:
        return max(map(len, self.text.split("\n")))

    @property
    def commented(self) -> list[str]:
        """The line with its comment behind it, or above it where it would be too wide."""
        lines = self.text.split("\n")
        beside = f"{lines[0]}  # {self.comment}"
        if not self.comment or len(beside) <= self.room:
            return [beside if self.comment else lines[0], *lines[1:]]
        wrapped = textwrap.wrap(self.comment, self.room, initial_indent="# ", subsequent_indent="# ")
        return [*wrapped, *lines]


@dataclass
class Within:
    """A part of a program that is written in a function of its own."""

    nodes: Collection[fx.Node]
    spelled: dict[fx.Node, str]  # what the function is given, and how its code spells it
    targets: dict[fx.Node, str] = field(default_factory=dict)  # where an input's gradient is left
    names: dict[fx.Node, str] = field(default_factory=dict)  # of values that are handed on to other functions
    guards: list[Guard] = field(default_factory=list)
    upstream: fx.Node | None = None  # what its backward lines are given, where these stand apart
    taken: Collection[str] = ()  # other names that its code uses


class Layout:
    """The lines of a program. `dotted` writes gradients as `w.g`, otherwise as `w_g`."""

    def __init__(
        self,
        program: Program,
        dotted: bool,
        indent: int = 0,
        upstream_of_output: bool = False,
        only: Collection[fx.Node] | None = None,
        width: int = WIDTH,
        within: Within | None = None,
        speller: Callable[[Callable[[fx.Node], str | None]], Python] = Python,
    ) -> None:
        """`upstream_of_output` names the upstream gradient after the output; `only` gives a backward line to
        these values' gradients and to nothing else; `within` writes a part of the program alone; `speller`
        writes the expressions."""
        self.program, self.dotted, self.width = program, dotted, width - indent
        self.upstream_of_output, self.only, self.within = upstream_of_output, only, within
        self.guards = program.guards if within is None else within.guards
        self.owners = _owners(program)
        roots = [program.output, *(program.gradients[w] for w in self._asked()), *(g.node for g in program.guards)]
        self.live = needed(roots)
        self.uses = Counter(n for node in self.live for n in _reads(node))
        if within is not None:
            self.live = [n for n in self.live if n in within.nodes]
        self.variables, self.namer = name_values(program.graph.nodes)
        self.python = speller(self._variable)
        self.shown: set[fx.Node] = set()
        self.forced: set[fx.Node] = set()
        self.lines = self._build()
        while self._unsettled():
            self.lines = self._build()
        if program.comment is not None:
            for line in self.lines:
                line.comment, line.room = program.comment(self, line), self.width

    def _unsettled(self) -> bool:
        """Whether more values want a line, or the code turned out to use a name that a value has."""
        more = (self._too_long() | self.python.repeated) - self.forced
        self.forced |= more
        return bool(more) or self.python.reserved != self._avoided

    def part(self, phase: str) -> list[Line]:
        return [line for line in self.lines if line.phase == phase]

    def written(self, *phases: str) -> list[str]:
        """The lines of these parts as text, with their comments."""
        return [text for phase in phases for line in self.part(phase) for text in line.commented]

    def _asked(self) -> list[fx.Node]:
        return [w for w in self.program.wanted if w in self.program.gradients]

    # -- which values get a line -----------------------------------------------------------------

    def _build(self) -> list[Line]:
        spelled = self.within.spelled if self.within is not None else {}
        taken = [] if self.within is None else [*spelled.values(), *self.within.taken]
        self._avoided = set(self.python.reserved)
        self.variables, self.namer = name_values((n for n in self.live if n not in spelled), [*taken, *self._avoided])
        self.variables |= spelled | (self.within.names if self.within is not None else {})
        self.shown = {n for n in self.live if n.op == "placeholder" or self._has_line(n)} | set(spelled)
        self._name_the_rest()
        forward: list[Line] = []
        backward: list[Line] = []
        for node in self.live:
            if node in self.shown and node.op != "placeholder" and node not in spelled:
                (forward if node.meta["phase"] == "forward" else backward).append(self._line(node))
        backward += self._aliases()
        given, holds = self._conditions()
        return given + forward + holds + backward

    def _has_line(self, node: fx.Node) -> bool:
        operation = node.meta["operation"]
        if node in self.forced or node is self.program.output or self.python.needs_line(node) or node.meta.get("kept"):
            return True
        if self.only is not None:
            return node in self.variables if node.meta["phase"] == "forward" else self.owners.get(node) in self.only
        if isinstance(node.meta["val"], tuple | list) and not isinstance(node.meta["val"], torch.Size):
            return operation != "autograd_step" and self.uses[node] > 1
        if isinstance(node.meta["val"], int | float):
            return False  # a number of sizes says more in place
        if operation == "part" and isinstance(node.args[0], fx.Node) and self._has_line(node.args[0]):
            return True
        if node.meta["phase"] == "forward":
            named = bool(node.meta.get("name")) and isinstance(node.meta["val"], torch.Tensor)
            return named or (self.uses[node] > 1 and operation not in _FREE and not _picks(node))
        owner = self.owners.get(node)
        if owner is not None and (owner in self.program.wanted or owner.meta.get("name")):
            return True
        if "again" in node.meta and node.meta.get("name"):
            return True
        return self.uses[node] > 1 and operation not in _FREE

    def _name_the_rest(self) -> None:
        upstream, output = self.program.upstream, self.program.output
        if upstream is not None and self.upstream_of_output:
            self.namer.taken.discard("out_g")
            if output not in self.variables:
                self.variables[output] = self.namer.give("out" if output.meta["val"].ndim else "loss")
            self.variables[upstream] = self.namer.give(f"{self.variables[output]}_g")
        for node in self.live:
            made = node.meta.get("again")
            if made is not None and node.meta["phase"] == "backward" and node in self.shown:
                self.variables[node] = self.variables.get(made) or self.namer.give(name_of(made))
                self.variables.setdefault(made, self.variables[node])
        for node in self.live:
            if node not in self.shown or node in self.variables:
                continue
            owner = self.owners.get(node)
            if node.meta.get("kept") and not isinstance(node.meta["val"], torch.Tensor):
                self.variables[node] = f"ctx.{self.namer.give(name_of_size(node, self.variables))}"
            elif self.within is not None and node in self.within.names:
                self.variables[node] = self.within.names[node]
            elif self.within is not None and owner in self.within.targets:
                self.variables[node] = self.within.targets[owner]
            elif owner is not None and node.meta["phase"] == "backward":
                base = self.variables.get(owner)
                if base is not None and self.dotted:
                    self.variables[node] = f"{base}.g"
                else:
                    base = base or self.namer.give(name_of(owner))  # nobody else's name
                    self.variables[node] = self.namer.give(f"{base}_g")
            elif node is self.program.output:
                scalar = isinstance(node.meta["val"], torch.Tensor) and node.meta["val"].ndim == 0
                self.variables[node] = self.namer.give("loss" if scalar else "out")
            else:
                self.variables[node] = self.namer.give(name_of(node))

    def _variable(self, node: fx.Node) -> str | None:
        return self.variables.get(node) if node in self.shown else None

    # -- the lines -------------------------------------------------------------------------------

    def _line(self, node: fx.Node) -> Line:
        if node.meta["operation"] == "part" and node.args[0] in self.shown:
            return Line("", "", node, "unpacked")
        target, of = self.variables[node], self.owners.get(node)
        if isinstance(node.meta["val"], tuple | list) and not isinstance(node.meta["val"], torch.Size):
            names = ["_"] * len(node.meta["val"])
            for user in node.users:
                if user in self.shown and user.meta["operation"] == "part":
                    names[user.args[1]] = self.variables[user]  # type: ignore[index]
            target = ", ".join(names) + ("," if len(names) == 1 else "")
        self.python.place = functools.partial(self._place, node.meta["phase"])
        code = self.python.expression(node)[0]
        of = of if node.meta["phase"] == "backward" else None
        phase = "kept" if target.startswith("ctx.") else node.meta["phase"]
        return Line(target, code, node, phase, of, then=self.python.statements(target, node))

    def _place(self, phase: str) -> tuple[torch.device, str] | None:
        """The device of the program, and a value in reach that is on it."""
        within = self.within
        upstream = self.program.upstream if self.upstream_of_output else within.upstream if within is not None else None
        if phase == "backward" and upstream is not None:
            reach = [upstream]
        elif within is not None:
            reach = list(within.spelled)
        else:
            reach = [n for n in self.variables if n.op == "placeholder"]
        known = (n for n in reach if n in self.variables and isinstance(n.meta["val"], torch.Tensor))
        return next(((n.meta["val"].device, f"{self.variables[n]}.device") for n in known), None)

    def _aliases(self) -> list[Line]:
        """Inputs whose gradient is that of another value, or is written inside one: `b.g = out.g`."""
        lines = []
        for wanted in self._asked():
            node = self.program.gradients[wanted]
            if self.owners.get(node) is not wanted and (self.within is None or wanted in self.within.spelled):
                target = self._target_of(wanted)
                lines.append(Line(target, self.python.text(node), node, "backward", wanted, alias=True))
        return lines

    def _target_of(self, wanted: fx.Node) -> str:
        if self.within is not None and wanted in self.within.targets:
            return self.within.targets[wanted]
        name = self.variables[wanted]
        return f"{name}.g" if self.dotted else self.namer.give(f"{name}_g")

    def _conditions(self) -> tuple[list[Line], list[Line]]:
        """What is taken for granted: of the inputs alone, to be said first, and of values on the way."""
        found: dict[str, list[Line]] = {"given": [], "holds": []}
        for text, early in statements(self):
            phase = "given" if early else "holds"
            found[phase].append(Line("", text, self.program.output, phase))
        return found["given"], found["holds"]

    def _too_long(self) -> set[fx.Node]:
        """For each line that is too wide, its largest part that can have a line of its own."""
        if self.only is not None:
            return set()
        wide = [ln for ln in self.lines if ln.width > self.width and ln.phase in ("forward", "backward") and ln.code]
        return {part for line in wide if (part := self._split(line)) is not None}

    def _split(self, line: Line) -> fx.Node | None:
        inlined = self.inlined(line.node)
        inside = [n for n in inlined if n.meta["operation"] not in _FREE and isinstance(n.meta["val"], torch.Tensor)]
        inside = [n for n in inside if n not in self.forced]
        if not inside:
            numbers = [n for n in inlined if isinstance(n.meta["val"], int | float)]
            inside = [n for n in numbers if n.meta["phase"] == "backward" and n not in self.forced]
        half = len(line.code) / 2
        named = [n for n in inside if "hint" in n.meta] or inside
        return min(named, key=lambda n: abs(len(self.python.expression(n)[0]) - half), default=None)

    def inlined(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that are written inside the line of `node`."""
        found = []
        for child in node.all_input_nodes:
            if child not in self.shown:
                found += [child, *self.inlined(child)]
        return found


def _picks(node: fx.Node) -> bool:
    """Whether `node` is x[...] by integers and slices alone: a view, as cheap to write twice as to name."""
    return (
        node.meta["operation"] == "getitem"
        and all(not isinstance(i, list) for i in node.args[1:])
        and (len(node.all_input_nodes) == 1)
    )


def _reads(node: fx.Node) -> Iterable[fx.Node]:
    """The nodes that `node` reads, once for each time that it reads them."""
    found: list[fx.Node] = []

    def visit(value: Any) -> None:
        if isinstance(value, fx.Node):
            found.append(value)
        elif isinstance(value, tuple | list):
            for v in value:
                visit(v)
        elif isinstance(value, dict):
            visit(list(value.values()))
        elif isinstance(value, slice):
            visit([value.start, value.stop, value.step])

    visit([node.args, node.kwargs])
    return found


def _owners(program: Program) -> dict[fx.Node, fx.Node]:
    """For each gradient node, the forward value under whose name it is written."""
    values: dict[fx.Node, list[fx.Node]] = {}
    for value, gradient in program.gradients.items():
        if gradient.op != "placeholder":
            values.setdefault(gradient, []).append(value)
    owners = {}
    asked = set(program.wanted)
    for gradient, candidates in values.items():
        if gradient.meta["phase"] != "backward":
            continue  # a forward value that happens to be the gradient keeps its own name
        wanted = [c for c in candidates if c in asked]
        named = [c for c in candidates if c.meta.get("name") and c not in asked and c.op != "placeholder"]
        others = [c for c in candidates if c.op != "placeholder"]
        hinted = [c for c in others if "hint" in c.meta]
        if wanted and ((len(wanted) == 1 and not gradient.users) or not others):
            owners[gradient] = wanted[0]
        elif named:
            owners[gradient] = named[-1]
        elif len(wanted) >= 1:
            owners[gradient] = wanted[0]
        elif others:
            owners[gradient] = hinted[0] if hinted else others[-1]
    return owners
