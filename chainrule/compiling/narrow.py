"""Narrow matrix products, on whose few columns libraries waste vectors: whether C of our own is faster, by measuring."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from chainrule.compiling.c import NoCompiler, NoSpelling, compile_c
from chainrule.compiling.straight import products

NARROW = 64  # rows or columns of the result: of wider products no library leaves much to be gained

LONGEST = 0.04  # seconds that comparing takes, beside compiling

_faster: dict[object, bool] = {}


def faster_in_c(node: fx.Node) -> bool:
    """Whether a matrix product of these shapes and strides takes less time in C than in any library; measured once."""
    found = products.operands(node)
    if found is None:
        return False
    operands: list[Any] = [n.meta["val"] if n is not None else None for n in found]
    a, b, _ = operands
    if min(a.shape[0], b.shape[1]) > NARROW or a.dtype != torch.float32 or a.device.type != "cpu":
        return False
    key = tuple(None if t is None else (t.shape, t.stride()) for t in operands), torch.get_num_threads()
    if key not in _faster:
        _faster[key] = _compared(node, found)
    return _faster[key]


def _compared(node: fx.Node, operands: tuple[fx.Node | None, ...]) -> bool:
    """Try the product in C and in the best way of the libraries, in turn."""
    graph = fx.Graph()
    given: dict[fx.Node, fx.Node] = {}
    for operand in dict.fromkeys(n for n in operands if n is not None):
        given[operand] = graph.placeholder("operand")
        given[operand].meta["val"] = operand.meta["val"]
    result = graph.node_copy(node, given.__getitem__)
    graph.output([result])
    try:
        compiled = compile_c(graph, [result], {})
    except (NoSpelling, NoCompiler):
        return False
    values: list[Any] = [n.meta["val"] if n is not None else None for n in operands]
    with torch.no_grad():
        library = products.call_of(products.fastest(*values).way, *values)
        tensors = [products.like(n.meta["val"]) for n in given]
        seconds = products.shortest({"c": lambda: compiled(*tensors), "library": library}, LONGEST)
    return seconds["c"] < seconds["library"]
