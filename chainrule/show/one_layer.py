"""The functions of one repeated layer: its forward lines, its backward lines, and what is saved between them."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from chainrule.program import Program
from chainrule.recording import Guard
from chainrule.run import needed
from chainrule.show.layers import Layers, conditions_of
from chainrule.show.layout import Layout, Within
from chainrule.show.names import Namer, name_of
from chainrule.show.repeats import Run
from chainrule.show.text import docstring, filled, signature, wrapped


class OneLayer:
    """Written from the lines of the first layer, which stand for all."""

    def __init__(self, program: Program, layers: Layers, taken: Namer) -> None:
        """`taken` are the names of other functions."""
        self.program, self.layers = program, layers
        word = layers.prefix.rstrip(".").rpartition(".")[2] or "layer"
        word = word.removesuffix("s") if len(word) > 2 else word
        self.forward_name, self.backward_name = taken.give(f"{word}_forward"), taken.give(f"{word}_backward")
        self.nodes = set().union(*(layers.nodes(t) for t in range(layers.count)))
        self.layout = self._layout()
        self.saved = self._saved()

    def reads_inside(self, guard: Guard) -> bool:
        """Whether a condition speaks of a layer."""
        return any(n in self.nodes for n in needed([guard.node]))

    def _layout(self) -> Layout:
        layers, namer = self.layers, Namer()
        namer.taken.update(("p", "g", "saved"))
        spelled: dict[fx.Node, str] = {}
        for node, named in zip(layers.carried_in(0), layers.carried_in(1), strict=True):
            spelled[node] = namer.give(name_of(named))
        carried = list(spelled.values())
        for node in [*layers.shared(), *(nodes[0] for nodes in layers.drawn)]:
            spelled[node] = namer.give(name_of(node))
        spelled |= {node: f'p["{role}"]' for node, role in layers.roles.items()}
        spelled |= {gradient: namer.give("out_g") for gradient in layers.upstream(0)}
        names = {
            node: namer.give(f"{carried[min(position, len(carried) - 1)]}_g")
            for position, node in enumerate(layers.passed_back(0))
        }
        targets = {node: f'g["{role}"]' for node, role in layers.roles.items()}
        guards = conditions_of(layers, self.program.guards).get(0, [])
        within = Within(layers.nodes(0), spelled, targets, names, guards, layers.upstream(0)[0], namer.taken)
        return Layout(self.program, dotted=False, indent=4, within=within)

    def _saved(self) -> list[fx.Node]:
        """What the backward function reads of the forward function."""
        layers, found = self.layers, set[fx.Node]()
        known = {*layers.roles, *(n for nodes in layers.drawn for n in nodes), *layers.shared(), *layers.upstream(0)}
        shown = self.layout.shown

        def visit(node: fx.Node) -> None:
            if node in known or (node.op == "placeholder" and node not in shown):
                return
            if node in shown:
                if node.meta["phase"] == "forward":
                    found.add(node)
                return
            for child in node.all_input_nodes:
                visit(child)

        for line in self.layout.part("backward"):
            for node in [line.node] if line.alias else line.node.all_input_nodes:
                visit(node)
        return [n for n in [*layers.carried_in(0), *self.layout.live] if n in found]

    def arguments(self, run: Run, spell: Callable[[fx.Node], str], drawn: Callable[[int], str]) -> list[str]:
        """What a function takes besides the parameters and what is handed on: what all layers share, drawn numbers."""
        return [*(spell(n) for n in run.shared), *(drawn(k) for k in range(len(self.layers.drawn)))]

    def text(self) -> list[str]:
        """The lines of both definitions."""
        layers, layout = self.layers, self.layout
        spelled = layout.variables
        ins, outs, ups, backs = (
            [spelled[n] for n in nodes]
            for nodes in (layers.carried_in(0), layers.carried_out(0), layers.upstream(0), layers.passed_back(0))
        )
        also_ahead, also_back = ([spelled[n] for n in nodes] for nodes in layers.also(0))
        saved = [spelled[n] for n in self.saved]
        own_ahead, own_back = (
            ["p", *self.arguments(run, spelled.__getitem__, lambda k: spelled[layers.drawn[k][0]])]
            for run in (layers.ahead, layers.back)
        )
        shapes = signature(layout, [*layers.carried_in(0), *layers.ahead.shared])
        gives = f"({', '.join([*outs, 'saved', *also_ahead])})"
        first = layout.written("given", "forward", "holds")
        return [
            wrapped(f"def {self.forward_name}(", [*ins, *own_ahead], "):"),
            *docstring(f"One layer: {shapes}, its parameters p by name -> {gives}.", "    "),
            *(f"    {line}" for line in first),
            *filled("    saved = (", saved, ",)" if len(saved) == 1 else ")"),
            f"    return {', '.join([*outs, 'saved', *_tuple(also_ahead)])}",
            "",
            "",
            wrapped(f"def {self.backward_name}(", [*ups, "saved", *own_back], "):"),
            *docstring(f"({', '.join([*backs, 'the gradients of its parameters by name', *also_back])}).", "    "),
            *filled("    (", saved, ",) = saved" if len(saved) == 1 else ") = saved"),
            "    g = {}",
            *(f"    {text}" for text in layout.written("backward")),
            f"    return {', '.join([*backs, 'g', *_tuple(also_back)])}",
        ]


def _tuple(names: list[str]) -> list[str]:
    return [f"({', '.join(names)},)"] if names else []
