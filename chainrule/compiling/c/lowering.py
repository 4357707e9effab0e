"""A graph of aten to values: by its spellings, and where there is none by torch's own decompositions."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from chainrule.compiling.c import attention, layers, lookups, shapes, windows  # noqa: F401  they fill the table
from chainrule.compiling.c.arithmetic import C_TYPES
from chainrule.compiling.c.index import Index, Indices
from chainrule.compiling.c.spellings import SPELLINGS
from chainrule.compiling.c.values import Buffer, Value, View, dims, permute, view
from chainrule.errors import ChainruleError


class NoSpelling(ChainruleError):
    """An operation or a type that C has no spelling for: another engine is to be used."""


def argument(node: fx.Node, name: str) -> tuple[Buffer, Value]:
    """The memory of a placeholder, and the placeholder as a reading of it."""
    meta = node.meta["val"]
    shape, strides = tuple(meta.shape), tuple(meta.stride())
    if meta.dtype not in C_TYPES:
        raise NoSpelling(f"{name}: no C type for {meta.dtype}; use another engine")
    order = sorted(range(len(shape)), key=lambda d: (-strides[d], shape[d] == 1))
    dense = 1
    for d in reversed(order):
        if shape[d] != 1 and strides[d] != dense:
            break
        dense *= shape[d]
    else:
        buffer = Buffer(tuple(shape[d] for d in order), meta.dtype, name=name)
        return buffer, permute(buffer, [order.index(d) for d in range(len(shape))])
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides)) if meta.numel() else 0
    buffer = Buffer((extent,), meta.dtype, name=name)
    place = Index()
    for d, stride in enumerate(strides):
        place = place + Index.of(d) * stride
    return buffer, view(buffer, shape, [place])


class Lowering:
    """The value of each node of a graph; `buffers` holds the memory of its placeholders."""

    def __init__(self, graph: fx.Graph, names: Mapping[fx.Node, str]) -> None:
        self.values: dict[fx.Node, Any] = {}
        self.buffers: dict[fx.Node, Buffer] = {}
        for node in graph.nodes:
            name = names.get(node, node.name)
            if node.op == "placeholder":
                self.buffers[node], self.values[node] = argument(node, name)
            elif node.op == "call_function":
                self.values[node] = self._call(node.target, node.args, node.kwargs, node.meta.get("val"), self.values)
                named(self.values[node], name)
            elif node.op != "output":
                raise NoSpelling(f"{node.op} {node.target}: C spells calls of aten alone; use another engine")

    def layout(self, placeholder: fx.Node) -> Indices:
        """Where in its memory the elements of a placeholder lie."""
        value = self.values[placeholder]
        return tuple(i for i in value.index if isinstance(i, Index)) if isinstance(value, View) else dims(value.shape)

    def _call(self, target: Any, args: Any, kwargs: Any, meta: Any, values: Mapping[fx.Node, Any]) -> Any:
        inputs, named_inputs = fx.node.map_arg((args, kwargs), lambda n: values[n])
        if target is operator.getitem:
            return inputs[0][inputs[1]]
        if isinstance(target, type) and issubclass(target, tuple):  # several results that a decomposition gives names
            return inputs
        for tensor in torch.utils._pytree.tree_leaves(meta):
            if isinstance(tensor, torch.Tensor) and tensor.dtype not in C_TYPES:
                raise NoSpelling(f"{target}: no C type for {tensor.dtype}; use another engine")
        spelling = SPELLINGS.get(target)
        if spelling is not None:
            try:
                return spelling(meta, *inputs, **named_inputs)
            except NotImplementedError:
                pass
        return self._decomposed(target, args, kwargs, values)

    def _decomposed(self, target: Any, args: Any, kwargs: Any, values: Mapping[fx.Node, Any]) -> Any:
        table = {**get_decompositions([target]), **core_aten_decompositions()}
        if target not in table:
            raise NoSpelling(f"{target}: C has no spelling for it; use another engine")
        nodes = [n for n in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(n, fx.Node)]
        metas = {n: n.meta["val"] for n in nodes}

        def run(*tensors: torch.Tensor) -> Any:
            given = dict(zip(nodes, tensors))
            a, k = fx.node.map_arg((args, kwargs), lambda n: given[n])
            return table[target](*a, **k)

        fakes = [metas[n] for n in nodes]
        mode = next((f.fake_mode for f in fakes if hasattr(f, "fake_mode")), None)
        if mode is None:
            raise NoSpelling(f"{target}: C has no spelling for it; use another engine")
        with mode:
            part = make_fx(run, decomposition_table={})(*fakes).graph
        inner: dict[fx.Node, Any] = dict(
            zip((n for n in part.nodes if n.op == "placeholder"), (values[n] for n in nodes))
        )
        for node in part.nodes:
            if node.op == "call_function":
                if node.target is target:
                    raise NoSpelling(f"{target}: C has no spelling for it; use another engine")
                try:
                    inner[node] = self._call(node.target, node.args, node.kwargs, node.meta.get("val"), inner)
                except NoSpelling as error:
                    raise NoSpelling(f"{target}: C has no spelling for it; use another engine") from error
            elif node.op == "output":
                return tree_map(lambda n: inner[n] if isinstance(n, fx.Node) else n, node.args[0])
            elif node.op != "placeholder":
                raise NoSpelling(f"{target}: C has no spelling for {node.op} in it; use another engine")
        raise AssertionError


def named(value: Any, name: str) -> None:
    """Gives the name to the value, or to what a view of it reads, where that has none."""
    while isinstance(value, View) and not value.name:
        value.name = name
        value = value.base
    if isinstance(value, Value) and not value.name:
        value.name = name
