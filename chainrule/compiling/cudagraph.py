"""The engine "cudagraph": the whole step recorded once as a CUDA graph, and replayed on what its inputs hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.whole import Whole

aten = torch.ops.aten


def function_of(whole: Whole) -> Callable[..., Sequence[torch.Tensor]]:
    """The step as a function of all inputs of its graph, which writes what is to be written and returns the rest."""
    graph = fx.Graph()
    at: dict[fx.Node, fx.Node] = {}
    for node in whole.graph.nodes:
        if node.op != "output":
            at[node] = graph.node_copy(node, at.__getitem__)
    for home, value in whole.writes.items():
        graph.call_function(aten.copy_.default, (at[home], at[value]))
    graph.output(tuple(at[n] for n in whole.returned))
    return fx.GraphModule({}, graph)


def recorded(whole: Whole, function: Callable[..., Sequence[torch.Tensor]]) -> Callable[..., Sequence[torch.Tensor]]:
    """A function of the batch that copies it to where the graph reads it, and replays the graph.

    The batch is filled with zeros while the graph is recorded, and what that wrote is put back.
    """
    inputs = [n.meta["val"] for n in whole.inputs]
    tensors = [
        whole.held[n] if n in whole.held else torch.zeros(v.shape, dtype=v.dtype, device=v.device)
        for n, v in zip(whole.inputs, inputs)
    ]
    varying = [t for n, t in zip(whole.inputs, tensors) if n not in whole.held]
    kept = [(whole.held[home], whole.held[home].clone()) for home in whole.writes]
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):  # libraries choose their kernels before they are recorded
            function(*tensors)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        results = function(*tensors)
    for tensor, value in kept:
        tensor.copy_(value)

    def replay(*batch: torch.Tensor) -> Sequence[torch.Tensor]:
        for own, given in zip(varying, batch):
            own.copy_(given)
        graph.replay()
        return [r.clone() for r in results]

    return replay
