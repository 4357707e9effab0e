"""The repeated layers of a program: which lines of its forward and its backward pass are one layer's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice

from torch import fx

from chainrule.program import Program
from chainrule.recording import Guard
from chainrule.run import needed
from chainrule.show.layout import Layout, Line
from chainrule.show.python import Python
from chainrule.show.repeats import Lines, Run

WORTH = 30  # lines that must be saved
ENOUGH = 40  # of the best repeats of each pass, which are tried with one another


@dataclass
class Layers:
    """The repeated layers of a program; everything that is a list holds one entry for each layer."""

    forward: Lines
    backward: Lines
    ahead: Run  # the forward lines, first layer first
    back: Run  # the backward lines, last layer first
    prefix: str = ""  # of the parameters' names, up to the layer's number
    numbers: list[int] = field(default_factory=list)
    roles: dict[fx.Node, str] = field(default_factory=dict)  # each layer's parameter -> its name below the prefix
    drawn: list[list[fx.Node]] = field(default_factory=list)  # for each mask or noise of a layer, its nodes
    also_ahead: list[int] = field(default_factory=list)  # positions of forward lines that others read as well
    also_back: list[int] = field(default_factory=list)  # and of backward lines

    @property
    def count(self) -> int:
        return self.ahead.count

    def lines(self, layer: int) -> tuple[list[Line], list[Line]]:
        """The forward and the backward lines of one layer."""
        ahead = [self.forward.lines[i] for i in self.ahead.stretch(layer)]
        return ahead, [self.backward.lines[i] for i in self.back.stretch(self.count - 1 - layer)]

    def nodes(self, layer: int) -> set[fx.Node]:
        """Every node that is written in the lines of one layer."""
        ahead, backward = self.lines(layer)
        found: set[fx.Node] = set()
        for phase, lines in ((self.forward, ahead), (self.backward, backward)):
            for line in lines:
                if not line.alias:
                    found.add(line.node)
                found.update(phase.layout.inlined(line.node))
        return found

    def carried_in(self, layer: int) -> list[fx.Node]:
        return [nodes[layer] for nodes in self.ahead.carried.values()]

    def carried_out(self, layer: int) -> list[fx.Node]:
        start = self.ahead.start + layer * self.ahead.period
        return [self.forward.lines[start + position].node for position in self.ahead.carried]

    def upstream(self, layer: int) -> list[fx.Node]:
        """The gradients that the layer after this one passed back."""
        return [nodes[self.count - 1 - layer] for nodes in self.back.carried.values()]

    def passed_back(self, layer: int) -> list[fx.Node]:
        start = self.back.start + (self.count - 1 - layer) * self.back.period
        return [self.backward.lines[start + position].node for position in self.back.carried]

    def also(self, layer: int) -> tuple[list[fx.Node], list[fx.Node]]:
        """What a layer's forward and backward lines give to others, besides what they hand on."""
        ahead, back = self.ahead.stretch(layer), self.back.stretch(self.count - 1 - layer)
        return (
            [self.forward.lines[ahead.start + p].node for p in self.also_ahead],
            [self.backward.lines[back.start + p].node for p in self.also_back],
        )

    def shared(self) -> list[fx.Node]:
        return list(dict.fromkeys([*self.ahead.shared, *self.back.shared]))


def layers_of(program: Program) -> list[Layers]:
    """The repeated layers that are worth a function of their own: several where a model has several stacks."""
    layout = Layout(program, dotted=False, width=10**9)
    lines: dict[str, list[Line]] = {"forward": [], "backward": []}
    for line in layout.lines:
        if line.phase in ("forward", "backward", "unpacked"):
            lines[line.node.meta["phase"] if line.phase == "unpacked" else line.phase].append(line)
    forward, backward = Lines(layout, lines["forward"]), Lines(layout, _beside(lines["backward"]))
    found: list[Layers] = []
    while (layers := _next(program, forward, backward)) is not None:
        found.append(layers)
        forward.take(layers.ahead)
        backward.take(layers.back)
    return sorted(found, key=lambda layers: layers.ahead.start)


def _next(program: Program, forward: Lines, backward: Lines) -> Layers | None:
    backs = list(islice(backward.runs(), ENOUGH))
    for ahead in islice(forward.runs(), ENOUGH):
        for back in backs:
            layers = _matched(forward, backward, ahead, back)
            if layers is not None and _is_closed(program, layers):
                return layers
    return None


def _beside(lines: list[Line]) -> list[Line]:
    """Aliases, which stand at the end, after the line of the value that they name."""
    after: dict[fx.Node, list[Line]] = {}
    made = {line.node for line in lines if not line.alias}
    for line in lines:
        if line.alias and line.node in made:
            after.setdefault(line.node, []).append(line)
    placed = [li for line in lines if not line.alias for li in (line, *after.get(line.node, ()))]
    return [*placed, *(line for line in lines if line.alias and line.node not in made)]


def _matched(forward: Lines, backward: Lines, ahead: Run, back: Run) -> Layers | None:
    """The layers that both repeats have in common; None if they do not go together."""
    which = _layer_of_first(forward, ahead, back)
    if which is None:
        return None
    kept = [t for t in range(ahead.count) if 0 <= which - t < back.count]
    if len(kept) < 2 or (len(kept) - 1) * (ahead.period + back.period) < WORTH:
        return None
    a = forward.run(ahead.start + kept[0] * ahead.period, ahead.period, len(kept))
    b = backward.run(back.start + (which - kept[-1]) * back.period, back.period, len(kept))
    if a is None or b is None or not a.carried or not b.carried:
        return None
    layers = Layers(forward, backward, a, b)
    own = [*a.own, *(nodes[::-1] for nodes in b.own)]
    return layers if all(_belongs(layers, nodes) for nodes in own) else None


def _layer_of_first(forward: Lines, ahead: Run, back: Run) -> int | None:
    """The layer whose gradients the first stretch of the backward lines computes."""
    for nodes in back.own:
        at = forward.at.get(nodes[0])
        if at is not None and ahead.start <= at < ahead.start + ahead.period * ahead.count:
            return (at - ahead.start) // ahead.period
    return None


def _belongs(layers: Layers, nodes: list[fx.Node]) -> bool:
    """Whether a layer's own values are its parameters, its drawn numbers, or what its forward lines made."""
    if all(n.op == "placeholder" for n in nodes):
        if all(n.meta["operation"] == "drawn" for n in nodes):
            if nodes not in layers.drawn:
                layers.drawn.append(nodes)
            return True
        return _is_parameter(layers, nodes)
    made = [layers.forward.at.get(n, -1) for n in nodes]
    if all(at in layers.ahead.stretch(t) for t, at in enumerate(made)):
        return len({at - layers.ahead.stretch(t).start for t, at in enumerate(made)}) == 1
    return any(nodes == list(carried) for carried in layers.ahead.carried.values())


def _is_parameter(layers: Layers, nodes: list[fx.Node]) -> bool:
    """Whether the names are prefix.number.role, with the same prefix and role and the layers' numbers."""
    found = [re.fullmatch(r"(.*?\.)??(\d+)\.(.+)", n.meta.get("name") or "") for n in nodes]
    if not all(found):
        return False
    names = [(m[1] or "", int(m[2]), m[3]) for m in found if m]
    if len({name[0] for name in names}) > 1 or len({name[2] for name in names}) > 1:
        return False
    numbers = [name[1] for name in names]
    if layers.numbers and (layers.prefix, layers.numbers) != (names[0][0], numbers):
        return False
    layers.prefix, layers.numbers = names[0][0], numbers
    layers.roles |= dict.fromkeys(nodes, names[0][2])
    return True


def _is_closed(program: Program, layers: Layers) -> bool:
    """Whether a layer can be left to a function: what is read outside of it besides is given back as well."""
    everything = set().union(*(layers.nodes(t) for t in range(layers.count)))
    given = {*layers.carried_out(layers.count - 1), *layers.passed_back(0)}
    if not layers.numbers or given & set(layers.shared()):
        return False
    if not _hold_for_each(layers, program.guards):
        return False
    wanted = {program.gradients[w]: w for w in program.wanted if w in program.gradients}
    read = {g for g, w in wanted.items() if w not in layers.roles} | {program.output}
    for lines, run in ((layers.forward, layers.ahead), (layers.backward, layers.back)):
        inside = range(run.start, run.start + run.period * run.count)
        for index, gaps in enumerate(lines.gaps):
            if index not in inside:
                read.update(gaps)
    for node in (n for n in program.graph.nodes if n in read and n in everything and n not in given):
        phase, run, also = (
            (layers.forward, layers.ahead, layers.also_ahead)
            if node.meta["phase"] == "forward"
            else (layers.backward, layers.back, layers.also_back)
        )
        if node not in phase.at:
            return False
        position = (phase.at[node] - run.start) % run.period
        if position not in also:
            also.append(position)
    return True


def conditions_of(layers: Layers, guards: list[Guard]) -> dict[int, list[Guard]]:
    """The conditions that speak of a layer, by its number; -1 holds those that speak of several, or of more."""
    layout = layers.forward.layout
    inside = [layers.nodes(t) for t in range(layers.count)]
    found: dict[int, list[Guard]] = {}
    for guard in guards:
        spoken = [n for n in needed([guard.node], given=layout.shown) if n in layout.shown]
        number = next((t for t in range(layers.count) if any(n in inside[t] for n in spoken)), None)
        if number is None:
            continue
        known = {*inside[number], *layers.carried_in(number), *layers.shared(), *layers.roles}
        found.setdefault(number if all(n in known for n in spoken) else -1, []).append(guard)
    return found


def _hold_for_each(layers: Layers, guards: list[Guard]) -> bool:
    """Whether the conditions on the first layer say all that is said of any."""
    found = conditions_of(layers, guards)
    first = {_condition(layers, g, 0) for g in found.get(0, ())}
    return -1 not in found and all(_condition(layers, g, t) in first for t, gs in found.items() for g in gs)


def _condition(layers: Layers, guard: Guard, layer: int) -> tuple[str, tuple[object, ...]]:
    """A condition with each value as its place in the layer."""
    spoken: list[object] = []
    lines, start = layers.forward, layers.ahead.stretch(layer).start
    carried = layers.carried_in(layer)

    def place(node: fx.Node) -> str | None:
        if node not in lines.layout.shown:
            return None
        at = lines.at.get(node)
        own = at is not None and at in layers.ahead.stretch(layer)
        outside = layers.roles.get(node) or (("in", carried.index(node)) if node in carried else node)
        spoken.append(at - start if own and at is not None else outside)
        return "_"

    return Python(place).text(guard.node), tuple(spoken)
