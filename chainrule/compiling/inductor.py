"""The engine "inductor": the whole step through torch's compiler, as one graph."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.whole import Whole
from chainrule.compiling.straight import products

aten = torch.ops.aten


def compiler() -> str | None:
    """The C++ compiler that inductor would call, if there is one."""
    wanted = os.environ.get("CXX")
    return next(
        (found for name in ([wanted] if wanted else ["g++", "clang++", "c++"]) if (found := shutil.which(name))), None
    )


def compiled(whole: Whole) -> Callable[..., Any]:
    """A function of all inputs of the graph, which writes what is to be written and returns the rest."""
    graph = whole.graph
    _fast_products(graph)
    with graph.inserting_before(graph.output_node()):
        for home, value in whole.writes.items():
            graph.call_function(aten.copy_.default, (home, value))
    graph.output_node().args = (tuple(whole.returned),)
    module = fx.GraphModule({}, graph)
    examples: list[Any] = [
        torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=v.device) for v in map(_value, whole.inputs)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, while its compiler is imported
        if hasattr(
            torch._inductor, "standalone_compile"
        ):  # the same compiler, without a look at all inputs in each call
            made: Any = torch._inductor.standalone_compile(module, examples, dynamic_shapes="from_example_inputs")
            return made
        return torch.compile(module, fullgraph=True, dynamic=False)


def _value(node: fx.Node) -> torch.Tensor:
    value: torch.Tensor = node.meta["val"]
    return value


@torch.library.custom_op("chainrule::onednn_product", mutates_args=())
def onednn_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x @ weight.T + bias by oneDNN, which inductor would take apart if it were called by its own name."""
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return made


@onednn_product.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _fast_products(graph: fx.Graph) -> None:
    """Compute products by oneDNN where that was measured to be faster."""
    for node in list(graph.nodes):
        found = products.operands(node)
        if found is None:
            continue
        a, b, bias = found
        with torch.no_grad():
            way = products.fastest(_value(a), _value(b), _value(bias) if bias is not None else None).way
        if way in (products.MM, products.ADDMM):
            continue
        with graph.inserting_before(node):
            if way.transposed:
                a, b = (graph.call_function(aten.permute.default, (n, [1, 0])) for n in (b, a))
            if way.copied:
                a = graph.call_function(aten.clone.default, (a,), {"memory_format": torch.contiguous_format})
            weight = graph.call_function(aten.permute.default, (b, [1, 0]))
            product = graph.call_function(torch.ops.chainrule.onednn_product.default, (a, weight, bias))
            if way.transposed:
                product = graph.call_function(aten.permute.default, (product, [1, 0]))
        node.replace_all_uses_with(product)
        graph.erase_node(node)
