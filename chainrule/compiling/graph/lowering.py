"""From a derivation to one functional graph of aten operations with static shapes: what every engine reads."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from chainrule.compiling.memory import owner
from chainrule.derivation import Derivation
from chainrule.errors import ChainruleError, NotFinite, Site
from chainrule.program import Program
from chainrule.run import needed, overwritten, step

Tensors = dict[fx.Node, torch.Tensor]


@dataclass
class Lowered:
    """Forward and backward pass in aten operations. Nothing in `graph` writes into anything."""

    graph: fx.Graph
    batch: list[fx.Node | None]  # the placeholders that a call fills, in its order
    held: Tensors  # the placeholders that stay: parameters, buffers, constants
    drawn: dict[fx.Node, Callable[[], torch.Tensor]]  # random numbers, and how they are drawn anew
    loss: fx.Node
    gradients: dict[fx.Node, fx.Node]  # parameter -> its gradient
    params: dict[fx.Node, torch.Tensor]  # the person's own tensors
    writes: dict[fx.Node, fx.Node]  # what forward itself leaves in tensors that stay: running statistics
    guards: list[tuple[fx.Node, str]]  # values that must be true, and what it means if they are not
    names: dict[fx.Node, str]
    sites: dict[fx.Node, Site]
    operations: dict[fx.Node, str]  # in the person's words
    rewritten: set[fx.Node]  # what forward writes to out of sight
    backward: set[fx.Node] = field(default_factory=set)

    @property
    def outputs(self) -> list[fx.Node]:
        """All that is computed for its own sake."""
        return [self.loss, *self.gradients.values(), *self.writes.values(), *(node for node, _ in self.guards)]

    def carried(self, graph: fx.Graph, at: dict[fx.Node, fx.Node]) -> Lowered:
        """The same step as another graph, whose outputs stand in the same order; `at` says which of its nodes stand for
        those of this one."""
        taken: Any = iter(graph.output_node().args[0])  # type: ignore[arg-type]
        tables: dict[str, Any] = {
            name: {at[n]: value for n, value in getattr(self, name).items() if n in at}
            for name in ("held", "drawn", "params", "names", "sites", "operations")
        }
        return replace(
            self, graph=graph, batch=[at[n] if n is not None else None for n in self.batch], loss=next(taken),
            gradients={at[p]: next(taken) for p in self.gradients}, writes={at[p]: next(taken) for p in self.writes},
            guards=[(next(taken), meaning) for _, meaning in self.guards],
            backward={at[n] for n in self.backward if n in at}, rewritten={at[n] for n in self.rewritten if n in at},
            **tables,
        )  # fmt: skip

    def copied(self) -> Lowered:
        """The same, with a graph of its own."""
        graph = fx.Graph()
        at: dict[fx.Node, fx.Node] = {}
        graph.output(graph.graph_copy(self.graph, at))
        return self.carried(graph, at)


Gradients = Sequence[torch.Tensor]


def lower(
    d: Derivation,
    batch: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],
    after: Callable[[Gradients], Gradients] = list,
) -> Lowered:
    """The program of `d` in aten operations. `after` is done to all gradients together: clipping."""
    return _Lowering(d, batch, params).lowered(after)


def _own(node: fx.Node) -> torch.Tensor:
    """The person's own tensor that a placeholder stands for."""
    tensor: torch.Tensor = node.meta.get("given", node.meta["val"])
    return tensor


class _Lowering:
    def __init__(self, d: Derivation, batch: Sequence[torch.Tensor], params: Sequence[torch.Tensor]) -> None:
        self.d, self.program = d, d.program
        self.known = {id(_own(n)): n for n in self.program.inputs}
        again = [any(t is other for other in batch[:i]) for i, t in enumerate(batch)]
        self.batch = [None if twice else self.known.get(id(t)) for t, twice in zip(batch, again)]
        self.params = [self.known[id(p)] for p in params if id(p) in self.known]

    def lowered(self, after: Callable[[Gradients], Gradients]) -> Lowered:
        from torch._subclasses.functional_tensor import dispatch_functionalize
        from torch.fx.experimental.proxy_tensor import make_fx

        program = self.program
        gradients = {p: program.gradients[p] for p in self.params if p in program.gradients}
        writes = written(program)
        for home in writes:
            if home in self.batch:
                raise ChainruleError(
                    f"the forward pass writes to its argument {home.meta['name']} {tuple(home.meta['val'].shape)}, which "
                    "a compiled step leaves as it is; work on a copy",
                    writes[home].meta.get("site"),
                )
        guards = [g for g in program.guards if any(_is_read(n) for n in needed([g.node]))]
        roots = [program.output, *gradients.values(), *writes.values(), *(g.node for g in guards)]
        nodes = needed(roots)
        inputs = [n for n in program.inputs if n in set(nodes)]
        trail = _Trail(nodes)

        def traced(*values: torch.Tensor) -> list[torch.Tensor]:
            found = trail.run(dict(zip(inputs, values)))
            moving = after([found[g].to(p.meta["val"].dtype) for p, g in gradients.items()])
            rest = [found[r] for r in roots[1 + len(gradients) : len(roots) - len(guards)]]
            rest += [found[g.node].reshape(()) for g in guards]
            return [found[program.output], *moving, *rest]

        with torch.no_grad():
            functional = dispatch_functionalize(traced)
            module = make_fx(functional, tracing_mode="fake")(*(n.meta["val"].detach() for n in inputs))
        for node in module.graph.nodes:
            if _unsized(node.meta.get("val")):
                raise ChainruleError(
                    f"the shape of a value of {node.target} depends on the numbers of the batch, so that no step can be "
                    "planned for it; select with torch.where or a product with the mask instead"
                )
        return self._named(module, inputs, trail, list(gradients), writes, guards)

    def _named(
        self,
        module: fx.GraphModule,
        inputs: list[fx.Node],
        trail: _Trail,
        params: list[fx.Node],
        writes: dict[fx.Node, fx.Node],
        guards: Sequence[Any],
    ) -> Lowered:
        graph = module.graph
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        constants = _constants(module)
        at = dict(zip(inputs, placeholders))
        _copy_what_stays(graph)
        results: list[fx.Node] = list(graph.output_node().args[0])  # type: ignore[arg-type]
        loss, rest = results[0], iter(results[1:])
        names = self.d.layout.variables | self.d._names
        made = {low: high for high, low in trail.found.items() if isinstance(low, fx.Node)}
        spelled = {low: names[high] for low, high in made.items() if high in names}
        spelled |= {low: names.get(high, high.name) for high, low in at.items()}
        spelled.setdefault(loss, "loss")
        for low, result in zip(params, results[1:]):
            spelled.setdefault(result, f"{names[low]}.g")
        first = _resolved(self.batch, at)
        drawn = {at[n]: _again(n) for n in inputs if n.meta["operation"] == "drawn"}
        held = {low: _own(n) for n, low in at.items() if low not in first and low not in drawn}
        held |= constants
        lowered = Lowered(
            graph, first, held, drawn, loss,
            {at[p]: next(rest) for p in params},
            {at[p]: _own(p) for p in params},
            {at[p]: next(rest) for p in writes},
            [(next(rest), _meaning(g)) for g in guards],
            spelled,
            {low: high.meta["site"] for low, high in trail.sources.items() if high.meta.get("site")},
            {low: high.meta["operation"] for low, high in trail.sources.items()},
            {low for high, low in at.items() if high.meta.get("rewritten") or (high not in writes and overwritten(high))},
            {low for low, high in trail.sources.items() if high.meta["phase"] == "backward"},
        )  # fmt: skip
        return lowered


def _unsized(value: Any) -> bool:
    values = value if isinstance(value, tuple | list) else [value]
    return any(isinstance(n, torch.SymInt) for v in values if isinstance(v, torch.Tensor) for n in v.shape)


def _constants(module: fx.GraphModule) -> Tensors:
    """Tensors that the program holds in itself, as placeholders."""
    found, graph = {}, module.graph
    first = next(iter(graph.nodes))
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        with graph.inserting_before(first):
            placeholder = graph.placeholder(str(node.target))
        placeholder.meta["val"] = found[placeholder] = getattr(module, str(node.target))
        node.replace_all_uses_with(placeholder)
        graph.erase_node(node)
    return found


def _copy_what_stays(graph: fx.Graph) -> None:
    """A result that lies in the memory of an input is copied: inputs are written to, one by one."""
    output = graph.output_node()
    results: list[fx.Node] = list(output.args[0])  # type: ignore[arg-type]
    for i, result in enumerate(results):
        if owner(result).op == "placeholder":
            with graph.inserting_before(output):
                results[i] = graph.call_function(torch.ops.aten.clone.default, (result,))
                results[i].meta["val"] = result.meta["val"].clone()
    output.args = (results,)


def _resolved(batch: Iterable[fx.Node | None], at: dict[fx.Node, fx.Node]) -> list[Any]:
    return [at.get(n) if n is not None else None for n in batch]  # None: nothing reads it, or it stands there already


def written(program: Program) -> dict[fx.Node, fx.Node]:
    """Inputs that the forward pass writes to, with the value that it leaves there last."""
    given = {id(n.meta["given"]): n for n in program.inputs if "given" in n.meta}
    found = {}
    for node in program.graph.nodes:
        home = given.get(id(node.meta.get("given", node.meta.get("val"))))
        if home is not None and node is not home and node.meta["phase"] == "forward" and node.op != "placeholder":
            found[home] = node
    return found


def _again(node: fx.Node) -> Callable[[], torch.Tensor]:
    again = node.meta.get("again")
    sources = [n for n in node.meta.get("drawn_from", ()) if isinstance(n, fx.Node)]
    like = again is not None and getattr(again, "func", again).__name__.endswith(("_like", "_"))
    if again is None or (not like and any(n.meta["operation"] == "input" for n in needed(sources))):
        raise ChainruleError(
            f"{node.meta.get('name') or 'a value'} {tuple(node.meta['val'].shape)} is drawn at random from other "
            "values, which a compiled step cannot draw anew; draw it from given numbers, or outside of the forward pass",
            node.meta.get("site"),
        )
    return again


def _meaning(guard: Any) -> str:
    site = f" ({guard.site})" if guard.site else ""
    return f"the values of this batch take another path through the forward pass than those of the example{site}"


def _is_read(node: fx.Node) -> bool:
    """Whether a number is read out of a tensor here."""
    return node.op == "call_method" and node.target == "item"


def _of_tensors(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """The value of one node. A number that is read out of a tensor stays a tensor of no axes: it is another one in
    each batch."""
    first = values[node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else None
    if _is_read(node):
        assert isinstance(first, torch.Tensor)
        whole = isinstance(node.meta["val"], int) and not isinstance(
            node.meta["val"], bool
        )  # int(x) cuts what x has more
        return first.reshape(()).trunc() if whole and first.is_floating_point() else first.reshape(())
    if node.target is operator.not_ and isinstance(first, torch.Tensor):
        return first.logical_not()
    return step(node, values)


class _Trail:
    """Runs the program under the tracer, and notes which node of the trace holds each value."""

    def __init__(self, nodes: list[fx.Node]) -> None:
        self.nodes = nodes
        self.found: dict[fx.Node, Any] = {}
        self.sources: dict[fx.Node, fx.Node] = {}  # of each node of the trace, the one that it was made for

    def run(self, known: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
        from torch.fx.experimental.proxy_tensor import get_proxy_mode
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

        mode = get_proxy_mode()
        assert mode is not None
        graph = mode.tracer.graph
        values = dict(known)
        for node in self.nodes:
            if node in values or node.op in ("placeholder", "output"):
                continue
            last = graph._root.prev
            try:
                values[node] = _of_tensors(node, values)
            except GuardOnDataDependentSymNode as error:
                raise ChainruleError(
                    f"{node.meta['operation']} {tuple(node.meta['val'].shape)} looks at the numbers that it is given, as "
                    "they are when it runs, so that no step can be planned for it; write it out in other operations",
                    node.meta.get("site"),
                ) from error
            except ZeroDivisionError as error:
                raise NotFinite(
                    f"the loss became NaN: {node.meta['operation']} divides by the number of elements, which is 0; give a batch that is not empty",
                    node.meta.get("site"),
                ) from error
            if graph._root.prev is not last and isinstance(values[node], torch.Tensor):
                self.found[node] = graph._root.prev
            while last is not graph._root.prev:
                last = last.next
                self.sources[last] = node
        return values
