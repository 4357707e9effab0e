"""What a person gets back: the derived backward pass of one forward pass, to read, run and question."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.errors import ChainruleError, UnknownName
from chainrule.program import Program, differentiable
from chainrule.questions import Questions
from chainrule.run import needed, overwritten, run
from chainrule.show import dialects, styles
from chainrule.show.layout import Layout
from chainrule.show.names import keys
from chainrule.simplify import simplify

_SHAPE_ONLY = frozenset(("shape", "numel", "ones_like", "zeros_like", "full_like"))


class Value:
    """A named value of the program: `.value`, its gradient `.g`, `.shape`, and the `.line` that made it."""

    def __init__(self, name: str, value: torch.Tensor, g: torch.Tensor | None, site: Any) -> None:
        self.name, self.value, self.g = name, value, g
        self.shape = value.shape
        self.line: int | None = site.line if site else None
        self.site = site

    def __repr__(self) -> str:
        return f"{self.name}: value {tuple(self.shape)}, gradient {'none' if self.g is None else tuple(self.g.shape)}"


class Gradients(dict[str, torch.Tensor | None]):
    """Gradients by name; a name that is none is answered with those that there are."""

    def __missing__(self, name: str) -> None:
        known = ", ".join(self) or "none"
        raise UnknownName(
            f"no gradient of {name!r} was asked for; there are {known} (d[{name!r}].g is that of a value on the way)"
        )


class Derivation(Questions):
    """A derived backward pass. `print` it to read it; see `derive` for how to get one."""

    def __init__(self, base: Program, explicit: bool, check: bool = True) -> None:
        self._base, self._explicit = base, explicit
        self.program: Program = base.seeded(explicit)
        simplify(self.program)
        self._names = keys(self.program.graph.nodes)
        self._close_graph()
        self._refuse_overwritten(self._backward(self.program)[0])
        if check:
            self._run()
        self.fallbacks: list[str] = sorted(set(base.fallbacks))
        self.notes: list[str] = []
        self._confirmed: set[str] = set()  # emitted code that was run and compared
        self._sums = self._sums_of_inputs()
        if check:
            from chainrule.checking.oracles import confirm

            confirm(self)
            self._report_not_finite()

    def _close_graph(self) -> None:
        """Name the inputs as the person does, and return (output, {name: gradient})."""
        program = self.program
        for node in [*program.inputs, *([program.upstream] if program.upstream else [])]:
            node._rename(self._names.get(node, node.name).replace(".", "_"))
            node.target = node.name
        gradients = {self._names[w]: program.gradients.get(w) for w in program.wanted}
        closing = program.graph.output((program.output, gradients))
        closing.meta.update(operation="output", phase="output", val=None)

    # -- values ----------------------------------------------------------------------------------

    def _run(self) -> None:
        """Compute the gradients that were asked for, and nothing that they do not need for long."""
        _, forward = self._backward(self.program)
        asked = [self.program.gradients[w] for w in self.program.wanted if w in self.program.gradients]
        with torch.no_grad():
            values = run(needed(asked, given=forward), forward, keep=asked)
        for node in asked:
            node.meta["val"] = values.get(node, node.meta["val"])
            node.meta.pop("planned", None)

    @staticmethod
    def _backward(program: Program) -> tuple[list[fx.Node], dict[fx.Node, Any]]:
        """The nodes of the backward pass, and the values that the forward pass gave."""
        forward = {n: n.meta["val"] for n in program.graph.nodes if n.meta["phase"] == "forward"}
        return needed(list(program.gradients.values()), given=forward), forward

    def values(self) -> None:
        """Compute what has been let go of: every value of the backward pass, as `trace` and `.g` want them."""
        for program in (self.program, self._base):
            todo, forward = self._backward(program)
            if any("planned" in n.meta for n in todo):
                with torch.no_grad():
                    found = run(todo, forward)
                for node in todo:
                    node.meta["val"] = found[node]
                    node.meta.pop("planned", None)

    def _refuse_overwritten(self, backward: list[fx.Node]) -> None:
        """Inputs that something out of sight wrote to cannot be had as they were."""
        for node in backward:
            for used in node.all_input_nodes if node.meta["operation"] not in _SHAPE_ONLY else ():
                if used.op == "placeholder" and overwritten(used):
                    raise ChainruleError(
                        f"{self._names.get(used)} {tuple(used.meta['val'].shape)} was changed in place during the "
                        "forward pass, but the backward pass needs the value that it had; pass a copy",
                        used.meta.get("site"),
                    )

    def _sums_of_inputs(self) -> list[Any]:
        values = [n.meta["val"] for n in self.program.inputs]
        return [v.detach().sum().item() if isinstance(v, torch.Tensor) else v for v in values]

    def inputs_have_moved(self) -> bool:
        """Whether an input has other numbers than when it was recorded: parameters after a step."""
        return self._sums != self._sums_of_inputs()

    @property
    def output(self) -> torch.Tensor:
        """What forward returned."""
        value: torch.Tensor = self.program.output.meta["val"]
        return value

    @cached_property
    def grads(self) -> Gradients:
        """The gradients by name, in the order of the inputs; None where the output does not depend on one."""
        program = self.program
        asked = [n for n in program.inputs if n in set(program.wanted)]
        found = {self._names[n]: self._gradient(n) for n in asked}
        return Gradients({name: None if g is None else self._own(g) for name, g in found.items()})

    def _gradient(self, node: fx.Node) -> torch.Tensor | None:
        """The gradient of a node of the program; where simplifying left none, that of the program as derived."""
        gradient = self.program.gradients.get(node)
        if gradient is None or gradient.meta.get("erased"):
            gradient = self._base.gradients.get(node.meta["base"])
        if gradient is None:
            return None
        if "planned" in gradient.meta:
            self.values()
        return gradient.meta["val"].detach()

    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """(tensor, gradient) for each input that was asked for: the person's own tensor objects."""
        asked = set(self.program.wanted)
        return [(n.meta.get("given", n.meta["val"]), self._gradient(n)) for n in self.program.inputs if n in asked]

    def leave_gradients(self, inputs_only: bool = False) -> None:
        """Set `.g` on the person's tensors: the inputs, and the values on the way."""
        self.values()
        found = {
            id(tensor): (tensor, gradient.meta["val"])
            for n, gradient in self._base.gradients.items()
            if isinstance(tensor := n.meta.get("given", n.meta["val"]), torch.Tensor)
            and (n.op == "placeholder" or not inputs_only)
        }
        found |= {id(tensor): (tensor, gradient) for tensor, gradient in self.pairs()}
        for tensor, gradient in found.values():
            if gradient is not None:
                tensor.g = self._own(gradient)  # type: ignore[attr-defined]

    def _own(self, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient in memory of its own: `a -= a.g` must not change b.g."""
        storage = gradient.untyped_storage().data_ptr()
        shared = storage in self._storages
        self._storages.add(storage)
        return gradient.clone() if shared else gradient

    @cached_property
    def _storages(self) -> set[int]:
        values = [n.meta["val"] for n in self.program.graph.nodes if n.meta["phase"] == "forward"]
        return {v.untyped_storage().data_ptr() for v in values if isinstance(v, torch.Tensor) and v.numel()}

    def __getitem__(self, name: str) -> Value:
        node = self.node(name)
        return Value(name, node.meta["val"].detach(), self._gradient(node), node.meta.get("site"))

    def node(self, name: str) -> fx.Node:
        """The node of `graph` that computes a value with a name, the person's or that of a printed line."""
        for names in (self._names, {n: v for n, v in self.layout.variables.items() if n.meta["phase"] == "forward"}):
            for node, known in names.items():
                if known == name:
                    return node
        raise ChainruleError(f"no value is named {name!r}; there are {', '.join(self._names.values())}")

    @property
    def names(self) -> list[str]:
        """The names that `d[...]` knows, inputs first."""
        return list(self._names.values())

    # -- code ------------------------------------------------------------------------------------

    @cached_property
    def layout(self) -> Layout:
        """The lines that are printed, and the names in them."""
        return Layout(self.program, dotted=True)

    @property
    def inputs(self) -> list[str]:
        """The names of the arguments of the emitted function, in order."""
        return [self._names[n] for n in self._arguments()]

    def _arguments(self) -> list[fx.Node]:
        used = set(needed([self.program.output, *self.program.gradients.values()]))
        return [n for n in self.program.inputs if n in used or n in self.program.wanted]

    def source(self, style: str = "dotg", comments: str | None = None) -> str:
        """Stand-alone code, run and compared before it is given.

        "dotg" leaves `.g` on tensors; "function" defines `forward_and_backward(...)`, which returns
        (output, {name: gradient}); "autograd" defines a torch.autograd.Function, which keeps little for its backward
        pass; "layers" a class for each layer, with a `bwd`, and a model. These import torch alone. "numpy" and "jax"
        are the function in NumPy or JAX.

        `comments` puts the "shapes", the "math" or the reason ("why") of each line beside it.

        Raises ChainruleError where a library has no short spelling for an operation.

        >>> import chainrule as cr
        >>> d = cr.derive(lambda a, b: (a @ b).sum(), torch.ones(2, 3), torch.ones(3, 4))
        >>> print(*d.source("numpy").splitlines()[5:7], sep="\\n")
            # forward
            matmul = a @ b
        """
        comment = None
        if comments is not None:
            from chainrule.explain.comments import commenter

            comment = commenter(self, comments)
        text = styles.written(self, style, comment)
        if text not in self._confirmed:
            from chainrule.checking.emitted import confirm_source

            confirm_source(self, text, style)
            self._confirmed.add(text)
        return text

    @cached_property
    def _emitted(self) -> Callable[..., Any]:
        from chainrule.checking.emitted import own_functions

        space = dialects.executed(self.source("function"), own_functions(self.program))
        return space["forward_and_backward"]

    def function(self, *args: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Run the emitted `forward_and_backward`; inputs that are left out at the end are as recorded."""
        recorded = [n.meta["val"] for n in self._arguments()]
        if self._explicit and self.program.upstream is not None:
            recorded.append(self.program.upstream.meta["val"])
        with torch.no_grad():
            values = [*args, *recorded[len(args) :]]
            return dialects.called(self.program, self._emitted, self._arguments(), values)

    def __str__(self) -> str:
        text = dialects.described(self.program)
        if self.fallbacks:
            text += f"\n# one step each taken from autograd: {', '.join(self.fallbacks)}"
        return "\n".join([text, *(f"# note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k} {'none' if g is None else tuple(g.shape)}" for k, g in self.grads.items())
        return f"<Derivation of output {tuple(self.output.shape)}; gradients: {shapes}>"

    @property
    def graph(self) -> fx.Graph:
        """The torch.fx.Graph: forward and backward pass, inputs as placeholders, values in `node.meta`."""
        return self.program.graph

    def _report_not_finite(self) -> None:
        values: Sequence[Any] = [self.output, *self.grads.values()]
        if all(bool(torch.isfinite(v.sum())) or bool(torch.isfinite(v).all()) for v in values if v is not None):
            return  # a finite sum has finite terms
        self.values()
        for node in self.program.graph.nodes:
            value = node.meta["val"]
            if not isinstance(value, torch.Tensor) or "planned" in node.meta or not differentiable(node):
                continue
            if not bool(torch.isfinite(value).all()):
                kind = "NaN" if bool(torch.isnan(value).any()) else "infinity"
                operation = node.meta["operation"]
                what = (
                    f"the input {self._names.get(node)}"
                    if operation == "input"
                    else f"{operation} in the {node.meta['phase']} pass"
                )
                note = f"{kind} first appears in {what} {tuple(value.shape)}"
                note += f" ({node.meta['site']})" if node.meta.get("site") else ""
                self.notes.append(note)
                warnings.warn(note, RuntimeWarning, stacklevel=5)
                return
