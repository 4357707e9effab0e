"""The backward pass between any two values of a recorded program: what a vector upstream of one is on the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.backward import backward_pass
from chainrule.checking.oracles import confirm_pullback
from chainrule.deriving import new_recorder
from chainrule.errors import ChainruleError
from chainrule.program import Program, differentiable
from chainrule.reached import reached_from
from chainrule.recording import Entry
from chainrule.recording.entries import version_of
from chainrule.run import needed, restore, run

if TYPE_CHECKING:
    from chainrule.derivation import Derivation


class Pullback:
    """The gradient of `program.wanted[0]`, given that of `program.output`; made by `pullback`."""

    def __init__(self, program: Program) -> None:
        (self.wrt,) = program.wanted
        assert program.upstream is not None
        self.of, self.seed = program.output, program.upstream
        self.root = program.gradients.get(self.wrt)
        self._forward = {n: n.meta["val"] for n in program.graph.nodes if n.meta["phase"] == "forward"}
        self.todo = [] if self.root is None else needed([self.root], given=self._forward)

    def __call__(self, upstream: torch.Tensor) -> torch.Tensor:
        """The gradient for an `upstream` of the output's shape; zeros where nothing passes."""
        if self.root is None:
            return torch.zeros_like(self.wrt.meta["val"])
        with torch.no_grad():
            found: torch.Tensor = run(self.todo, {**self._forward, self.seed: upstream}, keep=[self.root])[self.root]
        return found

    def rows(self) -> torch.Tensor:
        """The gradient for each unit upstream, as the rows of a matrix."""
        value, wrt = self.of.meta["val"], self.wrt.meta["val"]
        matrix = torch.zeros(value.numel(), wrt.numel(), dtype=wrt.dtype, device=wrt.device)
        if self.root is None or not matrix.numel():
            return matrix
        together = self._together()
        for start in range(0, len(matrix), together):
            count = min(together, len(matrix) - start)
            units = torch.zeros(count, value.numel(), dtype=value.dtype, device=value.device)
            units[torch.arange(count), torch.arange(start, start + count)] = 1
            matrix[start : start + count] = self._batch(units.view(count, *value.shape)).reshape(count, -1)
        return matrix

    def _together(self) -> int:
        """How many backward passes fit into memory at once."""
        sizes = [n.meta["val"].numel() for n in self.todo if isinstance(n.meta["val"], torch.Tensor)]
        return max(1, min(256, 20_000_000 // max(1, sum(sizes))))

    def _batch(self, units: torch.Tensor) -> torch.Tensor:
        if len(units) > 1:
            try:
                return torch.vmap(self)(units)
            except RuntimeError:
                pass  # an operation that cannot be mapped (one that writes in place): one at a time
        return torch.stack([self(unit) for unit in units])


@contextmanager
def pullback(d: Derivation, of: fx.Node, wrt: fx.Node) -> Iterator[Pullback]:
    """The rules of the book from `of` back to `wrt`, two values of the program as it was derived; compared with
    autograd before it is given. The nodes are taken out of the graph at the end."""
    for node in (of, wrt):
        _refuse_inside(d, node)
    restore(of)
    graph = d._base.graph
    before = {n: dict(n.meta) for n in graph.nodes}
    recorder = new_recorder()
    recorder.graph, recorder.inputs = graph, list(d._base.inputs)
    for node in graph.nodes:
        if node.meta["phase"] == "forward" and isinstance(value := node.meta["val"], torch.Tensor):
            recorder.entries[id(value)] = Entry(value, node, version_of(value))
    try:
        program = backward_pass(recorder, of, None, [wrt])
        if wrt in program.gradients:
            confirm_pullback(program)
        yield Pullback(program)
    finally:
        for node in reversed(list(graph.nodes)):
            if node not in before:
                graph.erase_node(node)
        for node, meta in before.items():
            node.meta.clear()
            node.meta.update(meta)


def depends(of: fx.Node, on: fx.Node) -> bool:
    """Whether a change of `on` could change `of`, as far as gradients tell."""
    return of in reached_from([on], of.graph)


def located(d: Derivation, name: str, what: str) -> fx.Node:
    """The node of a named value in the program as it was derived; `what` asks for it, in an error's words."""
    if not isinstance(name, str):
        raise ChainruleError(f"{what} takes the name of a value, not {type(name).__name__}; d.names has them")
    if d.inputs_have_moved():
        raise ChainruleError(f"an input was changed since the forward pass was recorded; derive again before {what}")
    if name.endswith(".g") and name[:-2] in d.names:
        raise ChainruleError(f"{what} takes values of the forward pass, and {name} is a gradient; name {name[:-2]}")
    node: fx.Node = d.node(name).meta["base"]
    if not differentiable(node) or node.meta["val"].dtype.is_complex:
        value: Any = node.meta["val"]
        kind = str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else type(value).__name__
        raise ChainruleError(
            f"{what} needs real floating numbers, and {name} {tuple(getattr(value, 'shape', ()))} is {kind}; name another",
            node.meta.get("site"),
        )
    return node


def _refuse_inside(d: Derivation, node: fx.Node) -> None:
    region = node.meta.get("region")
    if region is not None and any(user.meta.get("region") is region for user in node.users):
        name = region.function.__name__ if region.function is not None else region.code.co_name
        raise ChainruleError(
            f"{node.meta.get('name')} {tuple(node.meta['val'].shape)} is computed inside {name}, whose backward step is a "
            "whole of its own; ask for what it takes or for what it gives",
            node.meta.get("site"),
        )
