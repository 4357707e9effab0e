"""Emitted code in which repeated layers stand once: a function for one layer, one for its backward pass,
and loops that call them.

The parameters are given as one dictionary, `dict(model.named_parameters())`, and each layer is given those
below its own prefix.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from chainrule.backward import Program
from chainrule.recording import Guard
from chainrule.run import needed
from chainrule.show.layers import Layers
from chainrule.show.layout import Layout, Within
from chainrule.show.names import Namer, keys
from chainrule.show.text import docstring, filled, signature, wrapped


def in_dictionary(program: Program, inputs: Iterable[fx.Node]) -> list[fx.Node]:
    """The inputs that folded code takes in its dictionary `p`: those that a model holds."""
    return [n for n in inputs if "." in (n.meta.get("name") or "") and n.meta["operation"] == "input"]


def folded(program: Program, inputs: list[fx.Node], layers: Layers) -> str:
    """The definitions of `forward_and_backward(..., p)` and of the functions that it calls."""
    return _Folded(program, inputs, layers).text()


class _Folded:
    def __init__(self, program: Program, inputs: list[fx.Node], layers: Layers) -> None:
        self.program, self.inputs, self.layers = program, inputs, layers
        self.names = keys(program.graph.nodes)
        word = layers.prefix.rstrip(".").rpartition(".")[2] or "layer"
        self.word = word.removesuffix("s") if len(word) > 2 else word
        self.everything = set().union(*(layers.nodes(t) for t in range(layers.count)))
        self.one = self._one_layer()
        self.saved = self._saved()
        self.main = self._main()

    # -- the two functions of a layer -------------------------------------------------------------

    def _one_layer(self) -> Layout:
        """The lines of the first layer, which stand for all."""
        layers, namer = self.layers, Namer()
        for name in ("p", "g", "saved", "drawn", "torch", "F"):
            namer.taken.add(name)
        spelled: dict[fx.Node, str] = {}
        for node in [*layers.carried_in(0), *layers.shared()]:
            spelled[node] = namer.give(node.meta.get("name") or node.meta["operation"])
        for node in (n[0] for n in layers.drawn):
            spelled[node] = namer.give(node.meta.get("name") or "drawn")
        for node, role in layers.roles.items():
            spelled[node] = f'p["{role}"]'
        targets = {n: f'g["{role}"]' for n, role in layers.roles.items()}
        nodes = layers.nodes(0)
        for gradient in layers.upstream(0):
            spelled[gradient] = namer.give("out_g")
        names = {
            n: namer.give(f"{name}_g") for n, name in zip(layers.passed_back(0), [*spelled.values()], strict=False)
        }
        guards = [g for g in self.program.guards if self._reads_inside(g)]
        return Layout(
            self.program, dotted=False, indent=4, within=Within(nodes, spelled, targets, names, guards, namer.taken)
        )

    def _reads_inside(self, guard: Guard) -> bool:
        return any(n in self.everything for n in needed([guard.node]))

    def _saved(self) -> list[fx.Node]:
        """What the backward function of a layer reads of its forward function."""
        layers, found = self.layers, dict[fx.Node, None]()
        known = {*layers.roles, *(n for nodes in layers.drawn for n in nodes), *layers.shared()}
        shown = self.one.shown - known - set(layers.upstream(0))

        def visit(node: fx.Node) -> None:
            if node in shown and node.meta["phase"] == "forward":
                found[node] = None
            elif node.meta["phase"] == "forward" and node not in known and node.op != "placeholder":
                for child in node.all_input_nodes:
                    visit(child)

        for line in self.one.part("backward"):
            for node in [line.node] if line.alias else line.node.all_input_nodes:
                self._visit_inlined(node, visit)
        return [n for n in [*layers.carried_in(0), *self.one.live] if n in found]

    def _visit_inlined(self, node: fx.Node, visit: object) -> None:
        if node.meta["phase"] == "backward" and node not in self.one.shown:
            for child in node.all_input_nodes:
                self._visit_inlined(child, visit)
        else:
            visit(node)  # type: ignore[operator]

    def _arguments(self, shared: list[fx.Node]) -> list[str]:
        """What a function takes besides what is carried: parameters, drawn numbers, what all layers share."""
        spelled = self.one.variables
        drawn = [spelled[nodes[0]] for nodes in self.layers.drawn]
        return ["p", *drawn, *(spelled[n] for n in shared)]

    def _functions(self) -> list[str]:
        layers, one = self.layers, self.one
        ins, outs = ([one.variables[n] for n in nodes] for nodes in (layers.carried_in(0), layers.carried_out(0)))
        upstream = [one.variables[n] for n in layers.upstream(0)]
        back = [one.variables[n] for n in layers.passed_back(0)]
        saved = [one.variables[n] for n in self.saved]
        first = [line.text for phase in ("given", "forward", "holds") for line in one.part(phase)]
        ahead, every = layers.ahead.shared, layers.shared()
        shapes = signature(one, [*layers.carried_in(0), *ahead])
        return [
            wrapped(f"def {self.word}_forward(", [*ins, *self._arguments(ahead)], "):"),
            *docstring(f"One layer: {shapes}, its parameters p by name -> ({', '.join(outs)}, saved).", "    "),
            *(f"    {line}" for line in first),
            *filled("    saved = (", saved, ",)" if len(saved) == 1 else ")"),
            f"    return {', '.join(outs)}, saved",
            "",
            "",
            wrapped(f"def {self.word}_backward(", [*upstream, "saved", *self._arguments(every)], "):"),
            *docstring(f"({', '.join(back)}, the gradients of its parameters by name).", "    "),
            *filled("    (", saved, ",) = saved" if len(saved) == 1 else ") = saved"),
            "    g = {}",
            *(f"    {line.text}" for line in one.part("backward")),
            f"    return {', '.join(back)}, g",
        ]

    # -- what calls them --------------------------------------------------------------------------

    def _main(self) -> Layout:
        layers, program = self.layers, self.program
        namer = Namer()
        for name in ("p", "grads", "below", "saved", "layer", "layers", "kept", "g", "i", "at", f"{self.word}_forward",
                     f"{self.word}_backward"):  # fmt: skip
            namer.taken.add(name)
        held = in_dictionary(program, program.inputs)
        spelled = {n: f'p["{self.names[n]}"]' for n in held}
        targets = {n: f'grads["{self.names[n]}"]' for n in program.wanted}
        for node in self.inputs:
            if node not in spelled:
                spelled[node] = namer.give(node.meta.get("name") or "t")
        carried = [namer.give(n.meta.get("name") or n.meta["operation"]) for n in layers.carried_out(layers.count - 1)]
        spelled |= dict(zip(layers.carried_out(layers.count - 1), carried, strict=True))
        for position, node in enumerate(layers.passed_back(0)):
            spelled[node] = namer.give(f"{carried[min(position, len(carried) - 1)]}_g")
        names = self._handed_over(spelled)
        nodes = {n for n in self.one.program.graph.nodes if n not in self.everything}
        guards = [g for g in program.guards if not self._reads_inside(g)]
        return Layout(
            program, dotted=False, indent=4, within=Within(nodes, spelled, targets, names, guards, namer.taken)
        )

    def _handed_over(self, spelled: dict[fx.Node, str]) -> dict[fx.Node, str]:
        """What a loop starts from has the loop's own name, where nothing else reads it."""
        layers, found = self.layers, {}
        last = layers.count - 1
        starts = [
            *zip(layers.carried_in(0), layers.carried_out(last), strict=True),
            *zip(layers.upstream(last), layers.passed_back(0), strict=True),
        ]
        for start, loop in starts:
            if start.op != "placeholder" and all(self._is_inside(user) for user in start.users):
                found[start] = spelled[loop]
        return found

    def _is_inside(self, user: fx.Node) -> bool:
        alone = user.meta["operation"] in ("shape", "shape_entry")
        return user in self.everything or (alone and all(self._is_inside(u) for u in user.users))

    def text(self) -> str:
        layers, main, program = self.layers, self.main, self.program
        held = in_dictionary(program, self.inputs)
        plain = [main.variables[n] for n in self.inputs if n not in held]
        if program.upstream is not None:
            plain.append(main.variables[program.upstream])
        head = [
            n for n in [*self.inputs, *([program.upstream] if program.upstream is not None else [])] if n not in held
        ]
        output = main.python.text(program.output)
        forward, backward = main.part("forward"), main.part("backward")
        given, holds = [ln.text for ln in main.part("given")], [ln.text for ln in main.part("holds")]
        before = self._before(forward, layers.carried_out(layers.count - 1), layers.carried_in(0))
        after = self._before(backward, layers.passed_back(0), layers.upstream(layers.count - 1))
        body = [
            *(["# holds for", *given] if given else []),
            "# forward",
            *(line.text for line in forward[:before]),
            *self._forward_loop(),
            *(line.text for line in forward[before:]),
            *(["# holds for", *holds] if holds else []),
            "# backward",
            "grads = {}",
            *(line.text for line in backward[:after]),
            *self._backward_loop(),
            *(line.text for line in backward[after:]),
            *self._other_gradients(),
            "assert all(g.shape == p[name].shape for name, g in grads.items() if name in p)",
        ]
        lines = [
            *self._functions(),
            "",
            "",
            "def below(p, prefix):",
            '    """The entries of p whose names begin with prefix, without it."""',
            "    return {name.removeprefix(prefix): t for name, t in p.items() if name.startswith(prefix)}",
            "",
            "",
            wrapped("def forward_and_backward(", [*plain, "p"], "):"),
            *docstring(
                f"{signature(main, head)}, the tensors of the model p by name -> ({output}, gradients).", "    "
            ),
            *(f"    {line}" for line in body),
            f"    return {output}, grads",
        ]
        return "\n".join(lines)

    def _before(self, lines: list, made: list[fx.Node], read: list[fx.Node]) -> int:  # type: ignore[type-arg]
        """Where the loop stands among `lines`: after what it reads, before the first reader of what it makes."""
        order = {n: i for i, n in enumerate(self.program.graph.nodes)}
        first = min(order[n] for n in made)
        return sum(order[line.node] < first or line.node in read for line in lines)

    def _calls(self, shared: list[fx.Node]) -> str:
        extra = [f"drawn[i][{k}]" for k in range(len(self.layers.drawn))]
        extra += [self.main.python.text(n) for n in shared]
        return "".join(f", {e}" for e in extra)

    def _forward_loop(self) -> list[str]:
        layers, main = self.layers, self.main
        outs = [main.variables[n] for n in layers.carried_out(layers.count - 1)]
        ins = [main.python.text(n) for n in layers.carried_in(0)]
        drawn = [", ".join(main.variables[n] for n in masks) for masks in zip(*layers.drawn, strict=True)]
        numbers = layers.numbers
        steady = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        which = f"range({f'{numbers[0]}, ' if numbers[0] else ''}{numbers[-1] + 1})" if steady else repr(numbers)
        return [
            f'layers = [below(p, f"{layers.prefix}{{i}}.") for i in {which}]',
            *filled("drawn = [", [f"({d},)" for d in drawn], "]") * bool(drawn),
            *([f"{', '.join(outs)} = {', '.join(ins)}"] if outs != ins else []),
            "saved = []",
            "for i, layer in enumerate(layers):" if drawn else "for layer in layers:",
            f"    {', '.join(outs)}, kept = {self.word}_forward({', '.join(outs)}, layer{self._calls(layers.ahead.shared)})",
            "    saved.append(kept)",
        ]

    def _backward_loop(self) -> list[str]:
        layers, main = self.layers, self.main
        backs = [main.variables[n] for n in layers.passed_back(0)]
        ups = [main.python.text(n) for n in layers.upstream(layers.count - 1)]
        number = "i" if layers.numbers == list(range(layers.count)) else f"{layers.numbers}[i]"
        if layers.numbers[0] and layers.numbers == list(range(layers.numbers[0], layers.numbers[-1] + 1)):
            number = f"i + {layers.numbers[0]}"
        name = f"{layers.prefix}{{{number}}}.{{name}}"
        return [
            *([f"{', '.join(backs)} = {', '.join(ups)}"] if backs != ups else []),
            f"for i in reversed(range({layers.count})):",
            f"    {', '.join(backs)}, g = {self.word}_backward({', '.join(backs)}, saved[i], layers[i]{self._calls(layers.shared())})",
            f'    grads |= {{f"{name}": t for name, t in g.items()}}',
        ]

    def _other_gradients(self) -> list[str]:
        """Inputs whose gradient another line has computed, and those that have none."""
        made = {line.target for line in self.main.part("backward")}
        lines = []
        for node in self.program.wanted:
            target = f'grads["{self.names[node]}"]'
            gradient = self.program.gradients.get(node)
            if node not in self.layers.roles and target not in made:
                lines.append(f"{target} = {'None' if gradient is None else self.main.python.text(gradient)}")
        return lines
