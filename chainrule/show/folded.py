"""Emitted code in which repeated layers stand once: a function for one layer, one for its backward pass,
and loops that call them.

The parameters are given as one dictionary, `dict(model.named_parameters())`, and each layer is given those
below its own prefix.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from chainrule.program import Program
from chainrule.show.layers import Layers
from chainrule.show.layout import Layout, Line, Within
from chainrule.show.names import Namer, keys, name_of
from chainrule.show.one_layer import OneLayer
from chainrule.show.repeats import Run
from chainrule.show.text import docstring, filled, signature, wrapped


def in_dictionary(program: Program, inputs: Iterable[fx.Node]) -> list[fx.Node]:
    """The inputs that folded code takes in its dictionary `p`: those that a model holds."""
    return [n for n in inputs if "." in (n.meta.get("name") or "") and n.meta["operation"] == "input"]


def folded(program: Program, inputs: list[fx.Node], stacks: list[Layers]) -> str:
    """The definitions of `forward_and_backward(..., p)` and of the functions that it calls."""
    return _Folded(program, inputs, stacks).text()


class _Loops:
    """The two loops over the layers of one stack, and the names that they leave their values under."""

    def __init__(self, one: OneLayer, namer: Namer) -> None:
        self.one, self.layers = one, one.layers
        layers, last = one.layers, one.layers.count - 1
        self.saved, self.stack, self.drawn = (namer.give(name) for name in ("saved", "layers", "drawn"))
        self.also, self.also_g = namer.give("also"), namer.give("also_g")
        outs = [namer.give(name_of(n)) for n in layers.carried_out(last)]
        self.spelled = dict(zip(layers.carried_out(last), outs, strict=True))
        for position, node in enumerate(layers.passed_back(0)):
            self.spelled[node] = namer.give(f"{outs[min(position, len(outs) - 1)]}_g")
        for t in range(layers.count):
            ahead, back = layers.also(t)
            for k, node in enumerate(ahead):
                self.spelled.setdefault(node, f"{self.also}[{t}][{k}]")
            for k, node in enumerate(back):
                self.spelled.setdefault(node, f"{self.also_g}[{last - t}][{k}]")

    def starts(self) -> dict[fx.Node, fx.Node]:
        """What the loops start from -> whose name it may bear."""
        layers, last = self.layers, self.layers.count - 1
        ahead = zip(layers.carried_in(0), layers.carried_out(last), strict=True)
        return dict(ahead) | dict(zip(layers.upstream(last), layers.passed_back(0), strict=True))

    def forward(self, main: Layout) -> list[str]:
        layers, numbers = self.layers, self.layers.numbers
        outs = [main.variables[n] for n in layers.carried_out(layers.count - 1)]
        ins = [main.python.text(n) for n in layers.carried_in(0)]
        steady = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        which = f"range({f'{numbers[0]}, ' if numbers[0] else ''}{numbers[-1] + 1})" if steady else repr(numbers)
        masks = [f"({', '.join(main.variables[n] for n in own)},)" for own in zip(*layers.drawn, strict=True)]
        also = bool(layers.also_ahead)
        call = ", ".join([*outs, "layer", *self._arguments(layers.ahead, main)])
        return [
            f'{self.stack} = [below(p, f"{layers.prefix}{{i}}.") for i in {which}]',
            *(filled(f"{self.drawn} = [", masks, "]") if masks else []),
            *([f"{', '.join(outs)} = {', '.join(ins)}"] if outs != ins else []),
            f"{self.saved}, {self.also} = [], []" if also else f"{self.saved} = []",
            f"for i, layer in enumerate({self.stack}):" if masks else f"for layer in {self.stack}:",
            f"    {', '.join([*outs, 'kept', *['more'] * also])} = {self.one.forward_name}({call})",
            f"    {self.saved}.append(kept)",
            *([f"    {self.also}.append(more)"] if also else []),
        ]

    def backward(self, main: Layout) -> list[str]:
        layers, numbers = self.layers, self.layers.numbers
        backs = [main.variables[n] for n in layers.passed_back(0)]
        ups = [main.python.text(n) for n in layers.upstream(layers.count - 1)]
        first = numbers[0]
        steady = numbers == list(range(first, first + len(numbers)))
        number = f"{numbers}[i]" if not steady else f"i + {first}" if first else "i"
        also = bool(layers.also_back)
        call = ", ".join([*backs, f"{self.saved}[i]", f"{self.stack}[i]", *self._arguments(layers.back, main)])
        return [
            *([f"{', '.join(backs)} = {', '.join(ups)}"] if backs != ups else []),
            *([f"{self.also_g} = []"] if also else []),
            f"for i in reversed(range({layers.count})):",
            f"    {', '.join([*backs, 'g', *['more'] * also])} = {self.one.backward_name}({call})",
            f'    grads |= {{f"{layers.prefix}{{{number}}}.{{name}}": t for name, t in g.items()}}',
            *([f"    {self.also_g}.append(more)"] if also else []),
        ]

    def _arguments(self, run: Run, main: Layout) -> list[str]:
        return self.one.arguments(run, main.python.text, lambda k: f"{self.drawn}[i][{k}]")


class _Folded:
    def __init__(self, program: Program, inputs: list[fx.Node], stacks: list[Layers]) -> None:
        self.program, self.inputs = program, inputs
        self.names = keys(program.graph.nodes)
        namer = Namer()
        namer.taken.update(("p", "grads", "layer", "kept", "more", "g", "i", "below", "name"))
        self.ones = [OneLayer(program, layers, namer) for layers in stacks]
        held = in_dictionary(program, program.inputs)
        spelled = {n: f'p["{self.names[n]}"]' for n in held}
        spelled |= {n: namer.give(n.meta.get("name") or "t") for n in inputs if n not in spelled}
        self.loops = [_Loops(one, namer) for one in self.ones]
        for loops in self.loops:
            spelled |= loops.spelled
        self.inside = set().union(*(one.nodes for one in self.ones))
        starts = {k: v for loops in self.loops for k, v in loops.starts().items()}
        free = {s: spelled[loop] for s, loop in starts.items() if s not in spelled and self._only_inside(s)}
        targets = {n: f'grads["{self.names[n]}"]' for n in program.wanted}
        guards = [g for g in program.guards if not any(one.reads_inside(g) for one in self.ones)]
        nodes = {n for n in program.graph.nodes if n not in self.inside}
        within = Within(nodes, spelled, targets, free, guards, taken=namer.taken)
        self.main = Layout(program, dotted=False, indent=4, within=within)

    def _only_inside(self, node: fx.Node) -> bool:
        """Whether nothing but layers reads `node`, so that a loop may overwrite its name."""
        return node.op != "placeholder" and all(
            user in self.inside or (user.meta["operation"] in ("shape", "shape_entry") and self._only_inside(user))
            for user in node.users
        )

    def text(self) -> str:
        main, program = self.main, self.program
        upstream = [] if program.upstream is None else [program.upstream]
        held = in_dictionary(program, self.inputs)
        plain = [n for n in [*self.inputs, *upstream] if n not in held]
        output = main.python.text(program.output)
        given, holds = main.written("given"), main.written("holds")
        ahead = [
            (one.layers.forward.lines[one.layers.ahead.start].node, loops.forward(main)) for one, loops in self._both()
        ]
        back = [
            (one.layers.backward.lines[one.layers.back.start].node, loops.backward(main)) for one, loops in self._both()
        ]
        body = [
            *(["# holds for", *given] if given else []),
            "# forward",
            *self._with_loops(main.part("forward"), ahead),
            *(["# holds for", *holds] if holds else []),
            "# backward",
            "grads = {}",
            *self._with_loops(main.part("backward"), back),
            *self._other_gradients(),
            "assert all(g.shape == p[name].shape for name, g in grads.items() if name in p and g is not None)",
        ]
        lines = [
            *(line for one in self.ones for line in [*one.text(), "", ""]),
            "def below(p, prefix):",
            '    """The entries of p whose names begin with prefix, without it."""',
            "    return {name.removeprefix(prefix): t for name, t in p.items() if name.startswith(prefix)}",
            "",
            "",
            wrapped("def forward_and_backward(", [*(main.variables[n] for n in plain), "p"], "):"),
            *docstring(
                f"{signature(main, plain)}, the tensors of the model p by name -> ({output}, gradients).", "    "
            ),
            *(f"    {line}" for line in body),
            f"    return {output}, grads",
        ]
        return "\n".join(lines)

    def _both(self) -> list[tuple[OneLayer, _Loops]]:
        return list(zip(self.ones, self.loops, strict=True))

    def _with_loops(self, lines: list[Line], loops: list[tuple[fx.Node, list[str]]]) -> list[str]:
        """The lines with each loop where its first node stood."""
        order = {n: i for i, n in enumerate(self.program.graph.nodes)}
        end = len(order)
        placed = [(end if line.alias else order[line.node], line.commented) for line in lines]
        placed += [(order[first], text) for first, text in loops]
        return [text for _, texts in sorted(placed, key=lambda at: at[0]) for text in texts]

    def _other_gradients(self) -> list[str]:
        """Inputs whose gradient another line has computed, and those that have none."""
        made = {line.target for line in self.main.part("backward")}
        inside = {node for one in self.ones for node in one.layers.roles}
        lines = []
        for node in self.program.wanted:
            target, gradient = f'grads["{self.names[node]}"]', self.program.gradients.get(node)
            if node not in inside and target not in made:
                lines.append(f"{target} = {'None' if gradient is None else self.main.python.text(gradient)}")
        return lines
