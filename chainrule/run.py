"""Where a number is touched: the recorded program is run again, node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx


def run(
    nodes: Iterable[fx.Node],
    known: Mapping[fx.Node, Any],
    convert: Callable[[Any], Any] = lambda value: value,
) -> dict[fx.Node, Any]:
    """The value of each of `nodes`, given the values of the `known` ones.

    `convert` is applied to constants that calls carry (a dtype, say), so that a float32 program can be
    run in float64.
    """
    values = dict(known)
    for node in nodes:
        if node not in values and node.op not in ("placeholder", "output"):
            values[node] = step(node, values, convert)
    return values


def step(node: fx.Node, values: Mapping[fx.Node, Any], convert: Callable[[Any], Any] = lambda value: value) -> Any:
    """The value of one node, from the values of the nodes that it reads."""
    args = filled(node.args, values, convert)
    kwargs = filled(node.kwargs, values, convert)
    if node.op == "call_method":
        if convert is double and node.target in ("float", "half", "bfloat16"):
            return double(args[0])  # rounding is no part of the function
        return convert(getattr(args[0], str(node.target))(*args[1:], **kwargs))
    assert callable(node.target)
    return convert(node.target(*args, **kwargs))


def filled(value: Any, values: Mapping[fx.Node, Any], convert: Callable[[Any], Any] = lambda value: value) -> Any:
    """`value` with each node replaced by its value."""
    if isinstance(value, fx.Node):
        return values[value]
    if isinstance(value, tuple):
        return tuple(filled(v, values, convert) for v in value)
    if isinstance(value, list):
        return [filled(v, values, convert) for v in value]
    if isinstance(value, dict):
        return {k: filled(v, values, convert) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(filled(v, values, convert) for v in (value.start, value.stop, value.step)))
    return convert(value)


def needed(roots: Iterable[fx.Node], given: Iterable[fx.Node] = ()) -> list[fx.Node]:
    """The nodes that `roots` are computed from, in the order of the graph; `given` ones are not opened."""
    closed, found = set(given), set()
    stack = list(roots)
    graph = stack[0].graph if stack else None
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        if node not in closed:
            stack.extend(node.all_input_nodes)
    return [n for n in graph.nodes if n in found] if graph is not None else []


def double(value: Any) -> Any:
    """Floating tensors and dtypes in double precision; everything else as it is.

    >>> double(torch.float32), double(torch.zeros(2)).dtype, double(3)
    (torch.float64, torch.float64, 3)
    """
    if isinstance(value, torch.Tensor) and value.dtype.is_floating_point:
        return value.double()
    if isinstance(value, torch.Tensor) and value.dtype.is_complex:
        return value.to(torch.complex128)
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    return value
