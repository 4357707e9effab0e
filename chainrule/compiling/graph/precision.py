"""Products in fewer bits: their operands are rounded, and their results widened again; all else stays as it is."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.graph.merging import clean, merge
from chainrule.errors import ChainruleError

aten = torch.ops.aten

# The operands that are rounded, and (of a call with several results) the results that come back so.
PRODUCTS: dict[Any, tuple[Sequence[int], Sequence[int]]] = {
    aten.mm.default: ((0, 1), ()),
    aten.addmm.default: ((0, 1, 2), ()),
    aten.bmm.default: ((0, 1), ()),
    aten.baddbmm.default: ((0, 1, 2), ()),
    aten.convolution.default: ((0, 1, 2), ()),
    aten.convolution_backward.default: ((0, 1, 2), (0, 1, 2)),
    aten._scaled_dot_product_flash_attention_for_cpu.default: ((0, 1, 2), (0,)),
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: ((0, 1, 2, 3, 4), (0, 1, 2)),
}


def products_in(lowered: Lowered, dtype: torch.dtype) -> None:
    """Have every product of `lowered` computed in `dtype`. Raises ChainruleError where that is no narrower type."""
    if dtype not in (torch.bfloat16, torch.float16):
        raise ChainruleError(
            f"compile was given dtype={dtype}; products are computed in torch.bfloat16 or torch.float16"
        )
    graph, replaced = lowered.graph, {}
    for node in list(graph.nodes):
        if node.target in PRODUCTS:
            replaced[node] = _narrowed(graph, node, dtype)
            node.replace_all_uses_with(replaced[node])
    _mark_backward(lowered, replaced)
    clean(lowered, replaced)
    merge(lowered)
    for node in graph.nodes:
        if node.target is aten._to_copy.default and node.kwargs.get("dtype") == dtype and node.args[0] in lowered.names:
            lowered.names.setdefault(node, f"{lowered.names[node.args[0]]}_{str(dtype).removeprefix('torch.')}")


def _narrowed(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    """The product on rounded operands, put before `node`; a single result is widened again, several where read."""
    rounded, several = PRODUCTS[node.target]
    value = node.meta["val"]
    with graph.inserting_before(node):
        args = [_cast(graph, a, dtype) if i in rounded else a for i, a in enumerate(node.args)]
        product = graph.call_function(node.target, tuple(args), node.kwargs)  # type: ignore[arg-type]
        product.meta = {**node.meta}
        if not several:
            product.meta["val"] = value.to(dtype)
            return _cast(graph, product, value.dtype)
    product.meta["val"] = type(value)(v.to(dtype) if i in several and v is not None else v for i, v in enumerate(value))
    for part in list(node.users):
        if part.target is operator.getitem and part.args[1] in several and isinstance(part.meta["val"], torch.Tensor):
            wide = part.meta["val"].dtype
            part.meta["val"] = part.meta["val"].to(dtype)
            with graph.inserting_after(part):
                widened = graph.call_function(aten._to_copy.default, (part,), {"dtype": wide})
            widened.meta["val"] = part.meta["val"].to(wide)
            part.replace_all_uses_with(widened)
            widened.args = (part,)  # which has become the widened value too
    return product


def _cast(graph: fx.Graph, value: Any, dtype: torch.dtype) -> Any:
    if not isinstance(value, fx.Node) or value.meta["val"].dtype == dtype:
        return value
    made = graph.call_function(aten._to_copy.default, (value,), {"dtype": dtype})
    made.meta["val"] = value.meta["val"].to(dtype)
    return made


def _mark_backward(lowered: Lowered, replaced: dict[fx.Node, fx.Node]) -> None:
    """What was made for the backward pass belongs to it."""
    old = {made: node for node, made in replaced.items()}
    for node in reversed(list(lowered.graph.nodes)):
        new = node.op == "call_function" and node not in old and node.target is aten._to_copy.default
        readers = [u for u in node.users if u.op == "call_function"]
        if old.get(node) in lowered.backward or (new and readers and all(u in lowered.backward for u in readers)):
            lowered.backward.add(node)
        if node.target in PRODUCTS and readers and all(u in lowered.backward for u in readers):
            lowered.backward.add(node)
