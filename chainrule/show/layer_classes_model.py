"""The model that runs layers forward in order and backward in reverse."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from torch import fx

from chainrule.show.layer_classes_cut import reads
from chainrule.show.layer_classes_words import renamed
from chainrule.show.names import Namer, name_of, name_values
from chainrule.show.python import Python
from chainrule.show.text import broken, docstring, filled, wrapped

if TYPE_CHECKING:
    from chainrule.show.layer_classes import LayerClasses


class Model:
    """The text of the model, in the person's names for what goes from layer to layer."""

    def __init__(self, of: LayerClasses) -> None:
        self.of, self.program = of, of.program
        self.variables, namer = name_values(self.program.graph.nodes, ["self"])
        self.ends = [layer.cut.output for layer in of.layers]
        for node in self.ends:
            if node not in self.variables:
                self.variables[node] = namer.give(name_of(node))
        self.attributes = self._attributes()
        self.said = self._conditions()

    def text(self) -> list[str]:
        """The lines of the class."""
        held, given = ([self.variables[n] for n in nodes] for nodes in (self.of.held, self.of.given))
        shapes = ", ".join(f"{self.variables[n]} {tuple(n.meta['val'].shape)}" for n in self.of.given)
        return [
            "class Model:",
            *docstring(f"Called with {shapes}.", "    "),
            "",
            wrapped("    def __init__(", ["self", *held], "):"),
            *(piece for line in self._made() for piece in broken(line)),
            *filled("        self.layers = [", [f"self.{a}" for a in self.attributes], "]"),
            "",
            wrapped("    def __call__(", ["self", *given], "):"),
            *self._forward(),
            "",
            *self._backward(),
        ]

    def _attributes(self) -> list[str]:
        """What the model calls its layers: relu, lin1, lin2."""
        words = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", layer.title).lower() for layer in self.of.layers]
        count, seen, namer, found = Counter(words), Counter[str](), Namer(), []
        namer.taken |= {"layers", "shared", "backward"}
        for word in words:
            seen[word] += 1
            found.append(namer.give(word if count[word] == 1 else f"{word}{seen[word]}"))
        return found

    def _made(self) -> list[str]:
        lines = []
        for attribute, layer in zip(self.attributes, self.of.layers, strict=True):
            held = [self.variables[n] for n in layer.cut.inputs if n in self.of.held]
            lines.append(f"        self.{attribute} = {layer.kind}({', '.join(held)})")
        return lines

    def _conditions(self) -> dict[fx.Node | None, list[str]]:
        """What the program takes for granted and no class asserts, by the output after which it can be said."""
        known = {*self.of.inputs, *self.ends}
        python = Python(lambda node: self.variables.get(node) if node in known else None)
        in_classes = set()
        for layer in self.of.layers:
            words = {f"v{i}": self.variables.get(n, "") for i, n in enumerate(layer.cut.inputs)}
            in_classes |= {renamed(text, words) for text in self.of.held_by_all(layer.kind)}
        said: dict[fx.Node | None, list[str]] = {}
        for guard in self.program.guards:
            text = f"assert {python.text(guard.node)}"
            if text not in in_classes:
                read = {*reads(guard.node, known.__contains__)}
                after = next((n for n in reversed(self.ends) if n in read), None)
                said.setdefault(after, []).append(f"        {text}")
        return said

    def _forward(self) -> list[str]:
        lines = [*self.said.get(None, [])]
        for attribute, layer in zip(self.attributes, self.of.layers, strict=True):
            given = ", ".join(self.variables[n] for n in layer.cut.inputs if n not in self.of.held)
            output = self.variables[layer.cut.output]
            lines += [f"        {output} = self.{attribute}({given})", *self.said.get(layer.cut.output, [])]
        if self.program.output not in self.said:
            output = lines.pop().partition(" = ")[2]  # the last line: it is returned as it is
        if self.of.several:
            names = [self._reached_as(n) for n in self.of.several]
            lines += filled("        self.shared = [", names, "]  # their gradients add up")
        return [*lines, f"        return {output}"]

    def _reached_as(self, node: fx.Node) -> str:
        """How the model reaches a value in its call."""
        if node not in self.of.held:
            return self.variables[node]
        known = zip(self.attributes, self.of.layers, strict=True)
        attribute, layer = next((a, layer) for a, layer in known if node in layer.cut.inputs)
        return f"self.{attribute}.{self.of.names(layer.kind)[f'v{layer.cut.inputs.index(node)}']}"

    def _backward(self) -> list[str]:
        explicit = self.program.upstream is not None
        return [
            f"    def backward(self{', out_g' if explicit else ''}):",
            *(
                ["        for value in self.shared:", "            value.g = torch.zeros_like(value)"]
                if self.of.several
                else []
            ),
            *(
                [f"        self.{self.attributes[-1]}.{self.of.gives(self.of.layers[-1])}.g = out_g"]
                if explicit
                else []
            ),
            "        for layer in reversed(self.layers):",
            "            layer.bwd()",
            '            assert all(v.g.shape == v.shape for v in vars(layer).values() if hasattr(v, "g"))',
        ]
