"""A forward pass as notebooks teach it: one class for each layer, with its backward step, and a model that runs them.

Each layer is derived alone, as a function of what it reads, so that its `bwd` knows nothing of the others. Layers
whose code is the same are one class.
"""

from __future__ import annotations

import linecache
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.program import Program
from chainrule.show.layer_classes_cut import Cut, cuts, with_gradient
from chainrule.show.layer_classes_model import Model
from chainrule.show.layer_classes_words import fresh, input_names, kept, mentions, renamed, tokens, without_clashes
from chainrule.show.layout import Layout, Within
from chainrule.show.text import broken

Derive = Callable[..., Any]  # chainrule.derive
_ROOM = 12  # for the `self.` of some names


@dataclass
class Layer:
    """One use of a class: its cut of the program, and the class's own code with inputs v0, v1, ..."""

    cut: Cut
    forward: list[str]
    holds: list[str]  # what its backward step takes for granted
    output: str
    backward: list[str]
    variables: list[str]  # what the code names, inputs first
    reached: list[int]  # the inputs that it gives a gradient
    kind: str = ""  # the class
    title: str = ""  # what its name says
    added: set[int] = field(default_factory=set)  # inputs whose gradient is added to that of other readers


def parameters(program: Program, inputs: list[fx.Node]) -> list[fx.Node]:
    """The inputs that layers hold, rather than are called with: those that the person marked, or that stand where
    weights stand."""
    tensors = {n: n.meta.get("given", n.meta["val"]) for n in inputs}
    marked = [n for n, t in tensors.items() if isinstance(t, torch.Tensor) and t.requires_grad]
    if marked and len(marked) < len(inputs):
        return marked
    return [n for n in inputs[1:] if n in program.wanted and _is_weight(n)]


def _is_weight(node: fx.Node) -> bool:
    return any(_weighs(user, node) for user in node.users if user.meta["phase"] == "forward")


def _weighs(user: fx.Node, node: fx.Node) -> bool:
    """Whether `user` reads `node` on the right of a product, stretched to its other operand, or by its rows."""
    operation, args = user.meta["operation"], list(user.args)
    if operation in ("T", "t", "mT", "transpose", "unsqueeze"):
        return _is_weight(user)
    if operation in ("matmul", "mm", "linear", "bmm", "mv", "addmm", "layer_norm", "embedding", "batch_norm"):
        return node is not args[0] and (node in args or node in user.kwargs.values())
    if operation == "getitem":
        return any(isinstance(i, fx.Node) and isinstance(i.meta["val"], torch.Tensor) for i in args[1:])
    others = [a for a in user.all_input_nodes if a is not node]
    value = user.meta["val"]
    return bool(others) and isinstance(value, torch.Tensor) and node.meta["val"].ndim < value.ndim


class LayerClasses:
    """The classes and the model of one program."""

    def __init__(self, program: Program, inputs: list[fx.Node], derive: Derive) -> None:
        self.program, self.inputs, self.derive = program, inputs, derive
        self.held = parameters(program, inputs)
        self.given = [n for n in inputs if n not in self.held]
        self.derived: dict[Any, Any] = {}
        self.flowing = with_gradient(program)
        found = cuts(program)
        if not found:
            raise ChainruleError("no layer computes the output; it is an input itself", program.output.meta.get("site"))
        texts = [self._function(cut) for cut in found]
        self.asked: dict[str, set[int]] = {}  # by the text of a layer, the inputs whose gradients any use of it needs
        for cut, text in zip(found, texts, strict=True):
            positions = (i for i, n in enumerate(cut.inputs) if n in self.flowing)
            self.asked.setdefault(text, set()).update(positions)
        self.layers = [self._layer(cut, text) for cut, text in zip(found, texts, strict=True)]
        self._share()
        self._add_up()

    # -- one layer -------------------------------------------------------------------------------

    def _layer(self, cut: Cut, text: str) -> Layer:
        inputs = [f"v{i}" for i in range(len(cut.inputs))]
        last = cut.output is self.program.output and self.program.upstream is None
        values = [n.meta["val"].detach() for n in cut.inputs]
        asked = [f"v{i}" for i in sorted(self.asked[text]) if values[i].is_floating_point() or values[i].is_complex()]
        key = (text, last, tuple(asked), *((tuple(v.shape), v.dtype) for v in values))
        if key not in self.derived:
            self.derived[key] = self._derived(cut, text, values, asked, last)
        d = self.derived[key]
        if d.program.output.op == "placeholder":
            raise self._not_a_layer(cut, "it gives back what it was given")
        if d.fallbacks:
            raise self._not_a_layer(cut, f"the step of {', '.join(d.fallbacks)} is taken from autograd")
        layout = Layout(d.program, dotted=True, indent=8 + _ROOM)
        output = layout.variables[d.program.output]
        upstream = d.program.upstream
        seeded = {layout.variables[upstream]: f"{output}.g"} if upstream in layout.variables else {}
        forward = [line.text for line in layout.part("forward") if line.code]
        holds = [line.text for phase in ("given", "holds") for line in layout.part(phase)]
        backward = [renamed(line.text, seeded) for line in layout.part("backward")]
        forward_values = [n for n in layout.shown if n.meta["phase"] == "forward"]
        variables = [*inputs, *(layout.variables[n] for n in forward_values if n.op != "placeholder")]
        reached = [i for i, name in enumerate(inputs) if d.grads.get(name) is not None]
        return Layer(cut, forward, holds, output, backward, variables, reached)

    def _function(self, cut: Cut) -> str:
        """The layer as a function of its inputs, v0, v1, ..."""
        inputs = {node: f"v{i}" for i, node in enumerate(cut.inputs)}
        part = Program(self.program.graph, [], cut.output, None, {}, [], [])
        layout = Layout(part, dotted=False, indent=4, within=Within(cut.nodes, inputs, taken=["out", "self"]))
        lines = [f"    {ln.text}" for ln in layout.part("forward") if ln.node is not cut.output and ln.code]
        expression = layout.python.expression(cut.output)[0]
        if any(ln.node is cut.output and not ln.code for ln in layout.part("forward") + layout.part("unpacked")):
            expression = layout.variables[cut.output]  # one of several results, which a line above unpacks
        return "\n".join(
            [f"def layer({', '.join(inputs.values())}):", *lines, f"    out = {expression}", "    return out"]
        )

    def _derived(self, cut: Cut, text: str, values: list[Any], asked: list[str], last: bool) -> Any:
        from chainrule.checking.emitted import own_functions

        source = f"import torch\nimport torch.nn.functional as F\n{text}\n"
        file = f"<layer {cut.title}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        space: dict[str, Any] = own_functions(self.program)
        exec(compile(source, file, "exec"), space)
        upstream = None if last else torch.ones_like(cut.output.meta["val"])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of infinities: the whole program has said so
                d = self.derive(space["layer"], *values, upstream=upstream)
                reached = [name for name in asked if d.grads.get(name) is not None]
                if reached != list(d.grads):
                    d = self.derive(space["layer"], *values, upstream=upstream, wrt=reached)
        except ChainruleError as error:
            raise self._not_a_layer(cut, str(error).rpartition(" (")[0]) from None
        return d

    @staticmethod
    def _not_a_layer(cut: Cut, why: str) -> ChainruleError:
        operation, shape = cut.output.meta["operation"], tuple(cut.output.meta["val"].shape)
        return ChainruleError(
            f'{operation} {shape} cannot be a layer of its own: {why}; take source("dotg")', cut.output.meta.get("site")
        )

    # -- classes ---------------------------------------------------------------------------------

    def _share(self) -> None:
        """Layers of one code are one class."""
        known, titles = dict[Any, str](), dict[str, str]()
        for layer in self.layers:
            key = (*layer.forward, None, *layer.backward, None, *self._holds(layer))
            if key not in known:
                known[key] = fresh(layer.cut.title, {"Model", *known.values()})
            layer.kind = known[key]
            layer.title = titles.setdefault(layer.kind, layer.cut.title)

    def _holds(self, layer: Layer) -> list[bool]:
        """For each input whether the layer may hold it; whether a class does is decided by all its uses."""
        return [n in self.held for n in layer.cut.inputs]

    def _add_up(self) -> None:
        """Where a value is read by several layers, each adds its part of the gradient."""
        readers = Counter(layer.cut.inputs[i] for layer in self.layers for i in layer.reached)
        several = {n for n, count in readers.items() if count > 1}
        for layer in self.layers:
            alike = self._uses(layer.kind)
            layer.added = {i for i in layer.reached if any(u.cut.inputs[i] in several for u in alike)}
        added = {layer.cut.inputs[i] for layer in self.layers for i in layer.added}
        self.several = [n for n in self.program.graph.nodes if n in added]

    def _uses(self, kind: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind == kind]

    def _class(self, kind: str) -> list[str]:
        uses = self._uses(kind)
        layer = uses[0]
        renaming = self.names(kind)
        held = [renaming[f"v{i}"] for i, n in enumerate(layer.cut.inputs) if n in self.held]
        given = [renaming[f"v{i}"] for i, n in enumerate(layer.cut.inputs) if n not in self.held]
        backward = self._backward(layer)
        out = renaming.get(layer.output, layer.output)
        read = [renaming.get(v, v) for v in layer.variables if any(mentions(line, v) for line in backward)]
        stored = [v for v in read if v not in held and v != out]
        attributes = {v: f"self.{v}" for v in [*held, *stored, out]}
        holds = self.held_by_all(kind)
        local = {k: v for k, v in attributes.items() if k not in given}
        forward = [renamed(renamed(line, renaming), local) for line in [*layer.forward, *holds]]
        arguments = [v for v in given if v in stored]
        lines = [f"class {kind}:"]
        if held:
            lines += [f"    def __init__({', '.join(['self', *held])}):", *kept(held), ""]
        lines += [f"    def __call__({', '.join(['self', *given])}):"]
        lines += kept(arguments) if arguments else []
        lines += [f"        {line}" for line in forward]
        lines += [f"        return self.{out}", "", "    def bwd(self):"]
        lines += [f"        {renamed(renamed(line, renaming), attributes)}" for line in backward]
        return [piece for line in lines for piece in broken(line)]

    def names(self, kind: str) -> dict[str, str]:
        """What a class calls the inputs v0, v1, ... of its code."""
        uses = self._uses(kind)
        return without_clashes(input_names([use.cut for use in uses], self.held), uses[0].variables)

    def gives(self, layer: Layer) -> str:
        """The attribute in which a layer keeps its output."""
        return self.names(layer.kind).get(layer.output, layer.output)

    def held_by_all(self, kind: str) -> list[str]:
        """What all uses of a class take for granted; the model compares the shapes of gradients besides."""
        first, *others = self._uses(kind)
        return [text for text in first.holds if all(text in use.holds for use in others)]

    def _backward(self, layer: Layer) -> list[str]:
        """The lines of `bwd`; a gradient that is added to others' is computed first."""
        lines = list(layer.backward)
        for i in sorted(layer.added):
            name = f"v{i}"
            own = [k for k, line in enumerate(lines) if line.startswith(f"{name}.g = ")]
            read = sum(len(tokens(line, f"{name}.g")) for line in lines)
            if read == 1:
                lines[own[0]] = lines[own[0]].replace(f"{name}.g = ", f"{name}.g = {name}.g + ", 1)
            else:
                lines = [renamed(line, {f"{name}.g": f"{name}_g"}) for line in lines] + [
                    f"{name}.g = {name}.g + {name}_g"
                ]
        return lines

    # -- the model -------------------------------------------------------------------------------

    def text(self) -> str:
        """The whole file."""
        kinds = list(dict.fromkeys(layer.kind for layer in self.layers))
        classes = ["\n".join(self._class(kind)) for kind in kinds]
        body = "\n\n\n".join([*classes, "\n".join(Model(self).text())])
        head = "import torch\n" + ("import torch.nn.functional as F\n" if re.search(r"\bF\.", body) else "")
        return f"{head}\n\n{body}\n"
