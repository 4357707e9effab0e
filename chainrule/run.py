"""Where a number is touched: the recorded program is run again, node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx

from chainrule.work import work


def run(
    nodes: Iterable[fx.Node],
    known: Mapping[fx.Node, Any],
    convert: Callable[[Any], Any] = lambda value: value,
    keep: Iterable[fx.Node] | None = None,
) -> dict[fx.Node, Any]:
    """The value of each of `nodes`, given the values of the `known` ones.

    `convert` is applied to constants that calls carry (a dtype, say), so that a float32 program can be
    run in float64. With `keep`, a value is let go after its last reader, except the known and the kept ones.
    """
    values = dict(known)
    todo = [n for n in nodes if n not in values and n.op not in ("placeholder", "output")]
    last = _last_reads(todo, {*values, *keep}) if keep is not None else {}
    for node in todo:
        values[node] = step(node, values, convert)
        for read in last.get(node, ()):
            del values[read]
    return values


def _last_reads(nodes: list[fx.Node], kept: set[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the values that nobody reads after it."""
    reader = {read: node for node in nodes for read in (node, *node.all_input_nodes)}
    found: dict[fx.Node, list[fx.Node]] = {}
    for read, node in reader.items():
        if read not in kept:
            found.setdefault(node, []).append(read)
    return found


def step(node: fx.Node, values: Mapping[fx.Node, Any], convert: Callable[[Any], Any] = lambda value: value) -> Any:
    """The value of one node, from the values of the nodes that it reads."""
    args = filled(node.args, values, convert)
    kwargs = filled(node.kwargs, values, convert) if node.kwargs else {}
    if node.op == "call_method":
        if convert is double and node.target in ("float", "half", "bfloat16"):
            return args[0].double()  # rounding is no part of the function; of a mask, ones and zeros are
        if convert is double and node.target == "cfloat":
            return args[0].cdouble()
        function, args = getattr(args[0], str(node.target)), args[1:]
    else:
        assert callable(node.target)
        function = node.target
    result = function(*args, **kwargs)
    work.count(result, args)
    if convert is double and isinstance(result, torch.Tensor) and result.dtype is torch.float32:
        return _in_double(lambda: function(*args, **kwargs))
    return convert(result)


def _in_double(call: Callable[[], Any]) -> Any:
    """What a call gives that makes numbers of its own: `mask * 0.3`, in which 0.3 is rounded as the default dtype is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return double(call())
    finally:
        torch.set_default_dtype(before)


_NUMBERS = frozenset((int, float, bool, str, type(None)))  # of which no precision is another one


def filled(value: Any, values: Mapping[fx.Node, Any], convert: Callable[[Any], Any] = lambda value: value) -> Any:
    """`value` with each node replaced by its value."""
    kind = type(value)
    if kind is fx.Node:
        return values[value]
    if kind in _NUMBERS:
        return value
    if isinstance(value, tuple):
        return tuple([filled(v, values, convert) for v in value])
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


def overwritten(node: fx.Node) -> bool:
    """Whether the memory of a node's value was written to since."""
    value, version = node.meta["val"], node.meta.get("version")
    if isinstance(value, tuple | list):  # the parts of one call share their memory
        return any(overwritten(u) for u in node.users if u.meta.get("operation") == "part")
    if not isinstance(value, torch.Tensor) or version is None or value.is_inference():  # which keep no version
        return False
    return value._version != version


def restore(output: fx.Node) -> None:
    """Compute again what `output` was made from, where the program has written over it since."""
    nodes = needed([output])
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in nodes:
            if node.op != "placeholder" and overwritten(node):
                values[node] = step(node, {n: values.get(n, n.meta["val"]) for n in node.all_input_nodes})
    for node, value in values.items():
        node.meta.setdefault("given", node.meta["val"])
        node.meta.update(val=value, version=getattr(value, "_version", None))


def blank(value: Any) -> Any:
    """Zeros of the shape and dtype of `value` in the memory of one element; of a tuple, each part.

    >>> blank(torch.zeros(1000, 1000)).shape
    torch.Size([1000, 1000])
    """
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return type(value)(map(blank, value)) if type(value) in (tuple, list) else tuple(map(blank, value))
    if not isinstance(value, torch.Tensor):
        return value
    with torch._C.DisableTorchFunction():  # no operation of anybody's program
        return torch.zeros((), dtype=value.dtype, device=value.device).expand(value.shape)


def double(value: Any) -> Any:
    """Floating tensors and dtypes in double precision; everything else as it is.

    >>> double(torch.float32), double(torch.zeros(2)).dtype, double(3)
    (torch.float64, torch.float64, 3)
    """
    if isinstance(value, torch.Tensor):
        dtype = value.dtype
        if dtype is torch.float64:
            return value
        if dtype.is_floating_point:
            return value.double()
        return value.to(torch.complex128) if dtype.is_complex else value
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    if isinstance(value, torch.dtype) and value.is_complex:
        return torch.complex128
    return value
