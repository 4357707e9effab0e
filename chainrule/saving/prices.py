"""What it costs to keep a value until the backward pass, and what it costs to make it again there.

Both are in bytes: those that are kept, and a part of those that are moved. What is finer than a byte decides
between equals: a value with a name rather than one without, one of the forward pass rather than one that the
backward pass computes by itself, the output, which the caller has anyway, before all.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

# Arithmetic and copies are as fast as memory: to make their values again costs little more than to read them.
_CHEAP = frozenset((
    "abs", "add", "arange", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "bool", "cat", "clamp", "clamp_max",
    "clamp_min", "clone", "column_stack", "contiguous", "diag", "diag_embed", "div", "double", "eq", "expand", "eye", "flatten",
    "flip", "float", "full", "full_like", "ge", "getitem", "gt", "hardtanh", "hstack", "isfinite", "isinf", "isnan", "le",
    "leaky_relu", "logical_and", "logical_not", "logical_or", "logical_xor", "long", "lt", "masked_fill", "maximum", "minimum",
    "mul", "ne", "neg", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "pad", "reciprocal", "relu", "relu6", "repeat",
    "reshape", "roll", "rot90", "sign", "sqrt", "square", "stack", "sub", "threshold", "tile", "to", "tril", "triu", "type",
    "type_as", "vstack", "where", "zeros", "zeros_like",
))  # fmt: skip
# Views that the backward pass takes itself: what they are of is as large in memory, and as good to keep.
_VIEWS = frozenset((
    "T", "mT", "H", "mH", "diagonal", "expand", "flatten", "movedim", "narrow", "permute", "reshape", "select", "squeeze", "t",
    "transpose", "unflatten", "unfold", "unsqueeze", "view",
))  # fmt: skip
_POWERS = (-3, -2, -1, 0.5, 1, 2, 3)
_SIZES = frozenset(("shape", "numel", "size"))

NEVER = 1 << 100
_BYTE = 1 << 16
_VIEW, _NUMBER, _INPUT, _OUTPUT, _NAMED, _UNNAMED, _AHEAD = 2, 4, 8, 16, 17, 18, 1 << 12
_PART = 4


def price_of_keeping(node: fx.Node, output: fx.Node) -> int:
    """An input is there anyway, and a number is nothing; a view keeps all the memory that it is a part of."""
    value = node.meta["val"]
    if is_tuple(value):
        return NEVER  # its parts are kept
    if node.meta["phase"] == "backward" and _is_plain_view(node):
        return NEVER
    if not isinstance(value, torch.Tensor):
        return _NUMBER
    base = _base(node)
    if base.op == "placeholder":
        return _INPUT if node is base else _UNNAMED
    tie = _OUTPUT if base is _base(output) else _NAMED if node.meta.get("name") else _UNNAMED
    return _whole(base) * _BYTE + (tie if node.meta["phase"] == "forward" else _AHEAD)


def price_of_making(node: fx.Node) -> int | None:
    """None where it is out of the question: products, reductions, and functions as dear as exp."""
    operation = node.meta["operation"]
    if node.op == "placeholder" or hasattr(node.target, "spell_step"):
        return None
    if node.meta["phase"] == "backward":
        return 0  # it is made there as it is
    if not is_tensor(node) and not is_tuple(node.meta["val"]):
        return 1 if operation in _SIZES or not any(map(is_tensor, node.all_input_nodes)) else None
    if operation == "part" or _viewed(node) is not None:
        return _VIEW
    if operation in _CHEAP or _is_small_power(node) or node.meta.get("repeated"):
        return max(map(_bytes, (node, *node.all_input_nodes))) * _BYTE // _PART + _VIEW
    return None


def is_size(node: fx.Node) -> bool:
    """Whether `node` is `x.shape` or `x.numel()` of a tensor."""
    return node.meta["operation"] in _SIZES and is_tensor(node.args[0])


def is_tensor(node: object) -> bool:
    return isinstance(node, fx.Node) and isinstance(node.meta["val"], torch.Tensor)


def is_tuple(value: object) -> bool:
    return isinstance(value, tuple | list) and not isinstance(value, torch.Size)


def _bytes(node: fx.Node) -> int:
    value = node.meta["val"]
    values = value if is_tuple(value) else (value,)
    return sum(v.numel() * v.itemsize for v in values if isinstance(v, torch.Tensor))


def _whole(node: fx.Node) -> int:
    """The memory that a value lies in."""
    value = node.meta["val"]
    if node.meta["phase"] == "forward" and value.layout is torch.strided:
        return int(value.untyped_storage().nbytes())
    return _bytes(node)


def _memory(node: fx.Node) -> Collection[int]:
    """Where the numbers of a value lie."""
    value = node.meta["val"]
    values = [v for v in (value if is_tuple(value) else (value,)) if isinstance(v, torch.Tensor)]
    return {v.untyped_storage().data_ptr() for v in values if v.layout is torch.strided and v.numel()} - {0}


def _viewed(node: fx.Node) -> fx.Node | None:
    """The value whose memory a view shares."""
    if node.op == "placeholder" or node.meta.get("written") or node.meta["phase"] != "forward":
        return None
    memory = _memory(node)
    for used in node.all_input_nodes if memory else ():
        if memory == _memory(used) and is_tensor(used):
            return used
        if node.meta["operation"] == "part" and _viewed(used) is not None:
            return used
    return None


def _is_plain_view(node: fx.Node) -> bool:
    of_one = [n for n in node.all_input_nodes if is_tensor(n)] == [node.args[0]]
    return of_one and node.meta["operation"] in (_VIEWS | {"getitem"})


def _base(node: fx.Node) -> fx.Node:
    while (viewed := _viewed(node)) is not None:
        node = viewed
    return node


def _is_small_power(node: fx.Node) -> bool:
    return node.meta["operation"] == "pow" and len(node.args) == 2 and node.args[1] in _POWERS
