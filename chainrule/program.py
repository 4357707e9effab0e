"""A recorded forward pass with its backward pass, in one graph: what simplification rewrites and readers read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from chainrule.recording import Guard


@dataclass
class Program:
    """A forward pass with its backward pass, in one graph."""

    graph: fx.Graph
    inputs: list[fx.Node]
    output: fx.Node
    upstream: fx.Node | None
    gradients: dict[fx.Node, fx.Node]  # forward node -> the node of its gradient
    wanted: list[fx.Node]  # the inputs whose gradients were asked for
    guards: list[Any]
    fallbacks: list[str] = field(default_factory=list)
    left: dict[fx.Node, fx.Node] = field(default_factory=dict)  # inputs that it overwrites -> what it leaves in them
    comment: Callable[[Any, Any], str] | None = None  # of a line in its layout, for code with its reasons

    def seeded(self, explicit: bool) -> Program:
        """A copy, free to be rewritten. Unless `explicit`, the gradient of the output is one: the loss."""
        graph = fx.Graph()
        at: dict[fx.Node, fx.Node] = {}
        for node in self.graph.nodes:
            at[node] = graph.node_copy(node, lambda n: at[n])
            at[node].meta["base"] = node
        assert self.upstream is not None
        upstream: fx.Node | None = at[self.upstream]
        if not explicit and upstream is not None:
            first = next((n for n in graph.nodes if n.meta["phase"] == "backward"), None)
            if first is not None or any(self.gradients.get(w) is self.upstream for w in self.wanted):
                with graph.inserting_before(first) if first is not None else nullcontext():
                    one = graph.call_function(torch.ones_like, (at[self.output],))
                one.meta.update(operation="ones_like", phase="backward", val=upstream.meta["val"])
                upstream.replace_all_uses_with(one)
                at = {k: one if v is upstream else v for k, v in at.items()}
            graph.erase_node(upstream)
            upstream = None
        return Program(graph, [at[n] for n in self.inputs if n is not self.upstream], at[self.output], upstream,
                       {at[v]: at[g] for v, g in self.gradients.items()}, [at[n] for n in self.wanted],
                       [Guard(at[g.node], g.site) for g in self.guards], list(self.fallbacks),
                       {at[n]: at[value] for n, value in self.left.items()})  # fmt: skip


def differentiable(node: fx.Node) -> bool:
    """Whether the value of `node` is a tensor that can have a gradient."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and (value.dtype.is_floating_point or value.dtype.is_complex)
