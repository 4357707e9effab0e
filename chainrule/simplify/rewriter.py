"""Rewriting a graph in place: sweeps over the nodes, new nodes with their shapes, removal of the dead."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from chainrule.program import Program
from chainrule.recording.calls import SYNONYMS
from chainrule.rules.broadcast import broadcast
from chainrule.run import blank, filled, needed

Row = Callable[["Rewriter", fx.Node], fx.Node | None]


class Rewriter:
    def __init__(self, program: Program, rows: Mapping[str, list[Row]]) -> None:
        self.program, self.graph, self.rows = program, program.graph, rows
        for value, gradient in program.gradients.items():
            if value.meta.get("name") and gradient.meta["phase"] == "backward" and value.op != "placeholder":
                gradient.meta["named"] = True  # it has a line of its own, so no product swallows it

    def roots(self) -> list[fx.Node]:
        wanted = [self.program.gradients[n] for n in self.program.wanted if n in self.program.gradients]
        return [self.program.output, *wanted, *(g.node for g in self.program.guards)]

    def sweep(self) -> bool:
        self.remove_dead()
        self._merge_equal()
        changed = False
        for node in list(self.graph.nodes):
            if node.meta.get("erased"):
                continue
            for candidate in self.rows.get(node.meta.get("operation", ""), ()):
                if node.meta["phase"] != "backward" and node.meta["operation"] not in ("shape", "numel"):
                    continue
                with self.graph.inserting_before(node):
                    better = candidate(self, node)
                if better is not None and better is not node:
                    self.replace(node, better)
                    changed = True
                    break
        return changed

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        old.replace_all_uses_with(new)
        if "hint" in old.meta and new.meta["phase"] == "backward":
            new.meta.setdefault("hint", old.meta["hint"])
        if "named" in old.meta and new.meta["phase"] == "backward":
            new.meta["named"] = True
        for forward, gradient in self.program.gradients.items():
            if gradient is old:
                self.program.gradients[forward] = new
        for guard in self.program.guards:
            if guard.node is old:
                guard.node = new
        self._erase(old)

    def call(self, target: Any, *args: Any, operation: str = "") -> fx.Node:
        """A new node before the one under rewriting, with its shape."""
        kind = self.graph.call_method if isinstance(target, str) else self.graph.call_function
        node = kind(target, args)
        node.meta.update(operation=operation or _operation(target), phase="backward")
        node.meta.update(val=infer(node), planned=True)
        return node

    def _erase(self, node: fx.Node) -> None:
        if not node.users:
            node.meta["erased"] = True
            self.graph.erase_node(node)

    def remove_dead(self) -> None:
        roots = set(self.roots())
        live_gradients = set(self.program.gradients.values())
        for node in reversed(list(self.graph.nodes)):
            if node.op in ("placeholder", "output") or node.users or node in roots:
                continue
            if node.meta["phase"] == "backward" or node.meta["operation"] in ("shape", "shape_entry", "numel"):
                self._erase(node)
        if any(g.meta.get("erased") for g in live_gradients):
            kept = {f: g for f, g in self.program.gradients.items() if not g.meta.get("erased")}
            self.program.gradients.clear()
            self.program.gradients.update(kept)

    def _merge_equal(self) -> None:
        """Computed once is enough: a backward node that repeats an earlier one is that one."""
        seen: dict[Any, fx.Node] = {}
        forward = set(needed([self.program.output]))
        for node in list(self.graph.nodes):
            if node.meta["phase"] == "forward" and node not in forward:
                continue  # what the person computed besides may be overwritten by now
            if node.op not in ("call_function", "call_method") or node.meta.get("written"):
                continue
            key = (node.op, _key(node.target), _key(node.args), _key(node.kwargs))
            first = seen.setdefault(key, node)
            if first is not node and node.meta["phase"] == "backward":
                first.meta["repeated"] = True  # the backward pass computes it too
                self.replace(node, first)


def _key(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_key(v) for v in value)
    if isinstance(value, slice):
        return ("slice", _key(value.start), _key(value.stop), _key(value.step))
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in value.items())
    if isinstance(value, fx.Node):
        return ("node", id(value))
    return (type(value), repr(value)) if isinstance(value, int | float | str | complex) else id(value)


def _operation(target: Any) -> str:
    name = target if isinstance(target, str) else target.__name__
    return SYNONYMS.get(name.rstrip("_"), name.rstrip("_"))


def infer(node: fx.Node) -> Any:
    """What `node` gives, as a tensor of the right shape and dtype that holds no numbers."""
    args: Any = filled(node.args, {n: blank(n.meta["val"]) for n in node.all_input_nodes})
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if node.meta["operation"] in _LIKE_THE_FIRST:
        return args[0]
    if node.meta["operation"] == "type_as":
        return args[0].to(args[1].dtype)
    if tensors and node.meta["operation"] in _ELEMENTWISE:
        dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors])
        if not (dtype.is_floating_point or dtype.is_complex) and any(isinstance(a, float) for a in args):
            dtype = torch.get_default_dtype()
        if any(isinstance(a, complex) for a in args):
            dtype = dtype.to_complex()
        return torch.empty((), dtype=dtype).expand(broadcast(*(tuple(t.shape) for t in tensors)))
    if node.op == "call_method":  # the other rows make views, which cost nothing
        return getattr(args[0], str(node.target))(*args[1:])
    assert callable(node.target)
    return node.target(*args)


_ELEMENTWISE = frozenset(("mul", "div", "neg", "add", "sub", "where", "pow"))
_LIKE_THE_FIRST = frozenset(("ones_like", "zeros_like", "full_like"))


def shape_of(value: Any) -> tuple[int, ...]:
    return tuple(value.meta["val"].shape) if isinstance(value, fx.Node) and is_tensor(value) else ()


def is_tensor(value: Any) -> bool:
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)


def shaped_like(node: fx.Node) -> fx.Node | None:
    """The node x where `node` is `something.expand(x.shape)`."""
    size = node.args[1] if len(node.args) == 2 else None
    if isinstance(size, fx.Node) and size.meta["operation"] == "shape":
        inner = size.args[0]
        return inner if isinstance(inner, fx.Node) else None
    return None
