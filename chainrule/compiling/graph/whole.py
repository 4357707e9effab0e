"""The whole step as one functional graph, the moves of the parameters too: for engines that fuse what they read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.optimisers import Optimiser
from chainrule.errors import ChainruleError


@dataclass
class Whole:
    """One graph. Its placeholders are `inputs`, in order; its outputs the loss (and the gradients, if no optimiser
    moves the parameters), then the new value of each tensor in `written`."""

    graph: fx.Graph
    inputs: list[fx.Node]
    batch: list[fx.Node | None]
    held: dict[fx.Node, torch.Tensor]  # all but the batch: parameters, state, constants, what is drawn, numbers
    drawn: dict[fx.Node, Any]
    numbers: list[fx.Node]  # of the optimiser, each a tensor of no axes
    returned: list[fx.Node]
    writes: dict[fx.Node, fx.Node]
    names: dict[fx.Node, str]


def whole(
    lowered: Lowered, optimiser: Optimiser | None, moments: dict[fx.Node, list[torch.Tensor]], guarded: bool
) -> Whole:
    """`lowered` with the moves of its parameters. If `guarded`, nothing that stays changes where the loss is not finite;
    else it is for the engine to look."""
    from torch._subclasses.functional_tensor import dispatch_functionalize
    from torch.fx.experimental.proxy_tensor import make_fx

    if lowered.guards:
        raise ChainruleError(f'{lowered.guards[0][1]}: only the engine "torch" looks at that')
    first = [n for n in lowered.graph.nodes if n.op == "placeholder"]
    params = list(lowered.gradients) if optimiser else []
    kept = [(p, m) for p in params for m in moments[p]]
    precision = max((p.meta["val"].dtype for p in params), key=lambda d: d.itemsize, default=torch.float32)
    count = len(optimiser.number_names) if optimiser else 0
    device = lowered.loss.meta["val"].device
    written = [*lowered.writes, *params]

    made: dict[fx.Node, fx.Node] = {}

    def step(*values: torch.Tensor) -> list[torch.Tensor]:
        given, rest = dict(zip(first, values)), list(values[len(first) :])
        own, numbers = rest[: len(kept)], rest[len(kept) :]
        found = _interpreted(lowered.graph, given, lambda old, new: made.setdefault(new, old))
        loss = found[lowered.loss]
        fine = torch.isfinite(loss)
        returned = [loss, *(found[g] for g in ([] if optimiser else lowered.gradients.values()))]

        def kept_if_fine(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
            return torch.where(fine, new, old) if guarded and new is not old else new

        stays = [kept_if_fine(found[v], given[home]) for home, v in lowered.writes.items()]
        after: list[torch.Tensor] = []
        for p in params:
            state = [m for (q, _), m in zip(kept, own) if q is p]
            assert optimiser is not None
            moved = optimiser.moved(given[p], found[lowered.gradients[p]], state, numbers)
            now = list(map(kept_if_fine, moved, (given[p], *state)))
            stays.append(now[0])
            after += now[1:]
        return [*returned, *stays, *after]

    like = (
        [n.meta["val"] for n in first]
        + [m for _, m in kept]
        + [torch.zeros((), dtype=precision, device=device) for _ in range(count)]
    )
    real = list(map(_empty, like))
    with torch.no_grad():
        functional = dispatch_functionalize(step)
        graph = make_fx(functional, tracing_mode="fake")(*real).graph
    graph.eliminate_dead_code()
    constants = hold_constants(graph)
    inputs = [n for n in graph.nodes if n.op == "placeholder" and n not in constants]
    at = dict(zip(first, inputs))
    states = inputs[len(first) : len(first) + len(kept)]
    results: list[fx.Node] = list(graph.output_node().args[0])  # type: ignore[arg-type]
    outputs = 1 + (0 if optimiser else len(lowered.gradients))
    homes = [*(at[n] for n in written), *states]
    held = {at[n]: t.detach() for n, t in lowered.held.items()} | {n: m for n, (_, m) in zip(states, kept)}
    held |= {at[n]: _empty(n.meta["val"]) for n in lowered.drawn}
    numbers = inputs[len(first) + len(kept) :]
    held |= constants
    held |= {n: torch.zeros((), dtype=precision, device=device) for n in numbers}
    names = {at[n]: lowered.names[n] for n in first if n in lowered.names}
    names |= {new: lowered.names[old] for new, old in made.items() if old in lowered.names}
    if optimiser:
        words = [f"{lowered.names[p]}.{word}" for p in params for word in optimiser.state_names]
        names |= dict(zip([*states, *numbers], [*words, *optimiser.number_names]))
    writes = {home: value for home, value in zip(homes, results[outputs:]) if value is not home}
    everything = [n for n in graph.nodes if n.op == "placeholder"]
    return Whole(
        graph, everything, [at[n] if n is not None else None for n in lowered.batch], held,
        {at[n]: again for n, again in lowered.drawn.items()}, numbers,
        results[:outputs], writes, names,
    )  # fmt: skip


def _empty(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


_IN_PLACE = {torch.ops.aten.full.default, torch.ops.aten.scalar_tensor.default}  # numbers, said where they are read


def hold_constants(graph: fx.Graph) -> dict[fx.Node, torch.Tensor]:
    """Compute what depends on no input, and make it one: placeholders, with their tensors."""
    known: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        random = (
            isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
        )
        if node.op == "call_function" and not random and all(n in known for n in node.all_input_nodes):
            args, kwargs = (fx.map_arg(a, known.__getitem__) for a in (node.args, node.kwargs))
            with torch.no_grad():
                known[node] = node.target(*args, **kwargs)
    found: dict[fx.Node, torch.Tensor] = {}
    for node, value in known.items():
        read = any(user not in known for user in node.users)
        if read and isinstance(value, torch.Tensor) and node.target not in _IN_PLACE:
            with graph.inserting_before(next(iter(graph.nodes))):
                placeholder = graph.placeholder(f"constant_{len(found)}")
            placeholder.meta["val"] = node.meta["val"]
            found[placeholder] = value
            node.replace_all_uses_with(placeholder)
    graph.eliminate_dead_code()
    return found


def _interpreted(
    graph: fx.Graph, given: dict[fx.Node, Any], note: Callable[[fx.Node, fx.Node], object]
) -> dict[fx.Node, Any]:
    """The values of a graph under the tracer; `note` is told which node of the trace stands for each of its nodes."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    mode = get_proxy_mode()
    assert mode is not None
    values = dict(given)
    for node in graph.nodes:
        if node.op == "call_function":
            args, kwargs = (fx.map_arg(a, values.__getitem__) for a in (node.args, node.kwargs))
            values[node] = node.target(*args, **kwargs)
            note(node, mode.tracer.graph._root.prev)
    return values
