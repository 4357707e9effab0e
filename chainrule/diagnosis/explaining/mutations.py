"""Small changes to one operation of a backward pass, each with the mistake that it would repair, or make.

A mutation of the person's own line that gives the right numbers is a repair. A mutation of the right line that
gives the person's numbers is the mistake. One list serves both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining import arrangements
from chainrule.diagnosis.explaining.exchanges import ONES, instead, is_mask, other_tensors
from chainrule.diagnosis.explaining.indexing import indices, other_places, other_rows, overwritten, scattered
from chainrule.diagnosis.explaining.mutation import DROPPED, REPLACED, WRAPPED, Around, Kind, Mutation
from chainrule.diagnosis.reading.paths import lost_from
from chainrule.diagnosis.truth.sketch import is_tensor


def mutations(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Every change to the operation `node`."""
    operation = node.meta["operation"]
    for kind in _KINDS.get(operation, (_activations,)):
        yield from kind(node, around)
    yield from other_tensors(node, around)


def _dims(node: fx.Node) -> tuple[Any, str | int | None]:
    """The axes that an operation runs along, and where they stand among its arguments."""
    for key in ("dim", "axis"):
        if key in node.kwargs:
            return node.kwargs[key], key
    if len(node.args) > 1 and not isinstance(node.args[1], bool):
        return node.args[1], 1
    return None, None


def _along(node: fx.Node, dims: Any, around: Around) -> fx.Node:
    _, place = _dims(node)
    if dims is None:
        return around.sketches.like(node, node.args[:1], {k: v for k, v in node.kwargs.items() if k in ("dtype",)})
    if isinstance(place, str):
        return around.sketches.like(node, kwargs={**node.kwargs, place: dims})
    return around.sketches.like(node, (node.args[0], dims, *node.args[2:]))


def _other_axes(node: fx.Node, around: Around) -> Iterator[Mutation]:
    given = node.args[0]
    if not is_tensor(given):
        return
    ndim = given.meta["val"].ndim  # type: ignore[union-attr]
    now, _ = _dims(node)
    reduces = node.meta["operation"] in _REDUCTIONS
    choices: list[Any] = list(range(ndim))
    if reduces and not node.kwargs.get("keepdim"):
        for dim in range(ndim):  # `/ mask.sum()` for `/ mask.sum(1, keepdim=True)`
            by = around.sketches.method(str(node.meta["operation"]), given, dim, keepdim=True)
            yield Mutation(node, by, "wrong-axis", REPLACED + 0.6)
    if reduces:
        choices += [pair for size in (2, 3) for pair in combinations(range(ndim), size) if size < ndim]
        choices += [None] if now is not None else []
    for dims in choices:
        if dims != now and not (isinstance(now, int) and now < 0 and dims == now + ndim):
            far = REPLACED if now is not None and dims is not None else REPLACED + 0.5
            more = node.meta["operation"] == "sum" and node in around.carries and _includes(dims, now, ndim)
            axis = (
                dims - ndim if isinstance(dims, int) and isinstance(now, int) and now < 0 else dims
            )  # as it stands there
            yield Mutation(node, _along(node, axis, around), "missing-broadcast-sum" if more else "wrong-axis", far)


def _includes(dims: Any, now: Any, ndim: int) -> bool:
    """Whether several axes are those of now, and more."""
    several, few = ({d % ndim for d in ([ds] if isinstance(ds, int) else ds or ())} for ds in (dims, now))
    return bool(few) and few < several


def _other_reductions(node: fx.Node, around: Around) -> Iterator[Mutation]:
    operation = node.meta["operation"]
    other = {"sum": "mean", "mean": "sum", "amax": "amin", "amin": "amax"}.get(operation)
    if other:
        target = other if node.op == "call_method" else getattr(torch, other)
        cause = "wrong-scale" if operation in ("sum", "mean") else "wrong-factor"
        yield Mutation(node, around.sketches.like(node, target=target, name=other), cause, REPLACED)
    if operation in ("var", "std"):
        for correction in (0, 1):
            kept = {k: v for k, v in node.kwargs.items() if k not in ("unbiased", "correction")}
            by = around.sketches.like(node, node.args[:2], {**kept, "correction": correction})
            yield Mutation(node, by, "wrong-scale", REPLACED)
    if operation in _REDUCTIONS and _dims(node)[0] is not None:
        keep = not node.kwargs.get("keepdim", len(node.args) > 2 and node.args[2] is True)
        kept = {k: v for k, v in node.kwargs.items() if k not in ("keepdim", "keepdims")}
        by = around.sketches.like(node, node.args[:2], {**kept, "keepdim": True} if keep else kept)
        yield Mutation(node, by, "wrong-shape", REPLACED)
    if operation in ("sum", "mean") and is_tensor(node.args[0]):
        yield Mutation(node, node.args[0], "wrong-shape", DROPPED, "missing-broadcast-sum")  # type: ignore[arg-type]


def _stretched(value: fx.Node, like: Any, around: Around) -> Iterator[fx.Node]:
    """A value that can be compared with another: of its shape, or with an axis put in."""
    a, b = value.meta["val"], like.meta["val"]
    if isinstance(a, torch.Tensor) and a.dtype == b.dtype and value is not like:
        if a.shape == b.shape:
            yield value
        elif a.ndim == b.ndim - 1:
            for axis in range(b.ndim):
                if a.shape == b.shape[:axis] + b.shape[axis + 1 :]:
                    yield around.sketches.method("unsqueeze", value, axis)


_TURNED = {"gt": ("lt", "le", "ge"), "ge": ("lt", "le", "gt"), "lt": ("gt", "ge", "le"), "le": ("gt", "ge", "lt"),
           "eq": ("ne",), "ne": ("eq",)}  # fmt: skip


def _masks(node: fx.Node, around: Around) -> Iterator[Mutation]:
    operation = node.meta["operation"]
    for far, other in enumerate(_TURNED.get(operation, ())):
        yield Mutation(node, _as(node, other, around), "wrong-mask", REPLACED + 0.01 * far)
    if operation in _TURNED and len(node.args) == 2 and isinstance(node.args[1], int | float):
        for bound in (0, 1, -1, 0.5, -node.args[1]):
            if bound != node.args[1]:
                yield Mutation(node, around.sketches.like(node, (node.args[0], bound)), "wrong-mask", REPLACED + 0.1)
    if operation in _TURNED and is_tensor(node.args[0]):
        for value in around.names(node):
            for stretched in _stretched(value, node.args[0], around):
                yield Mutation(
                    node, around.sketches.like(node, (node.args[0], stretched)), "wrong-mask", REPLACED + 0.4
                )
    if operation in ("bitwise_not", "logical_not"):
        yield Mutation(node, node.args[0], "wrong-mask", DROPPED)  # type: ignore[arg-type]
    if operation == "sub" and node.args[0] == 1 and is_tensor(node.args[1]) and is_mask(node.args[1]):
        yield Mutation(node, node.args[1], "wrong-mask", REPLACED)  # type: ignore[arg-type]
    if operation == "where" and len(node.args) == 3:
        yield Mutation(
            node, around.sketches.like(node, (node.args[0], node.args[2], node.args[1])), "wrong-mask", REPLACED
        )
    if operation in ("float", "to", "type_as", "mul", "double") and is_tensor(node.args[0]) and is_mask(node):
        yield Mutation(node, around.sketches.operation("sub", 1, node), "wrong-mask", WRAPPED)


def _as(node: fx.Node, other: str, around: Around) -> fx.Node:
    """The same call under another operator's name."""
    if node.op == "call_method":
        return around.sketches.like(node, target=other, name=other)
    return around.sketches.operation(other, *node.args)


_EXPONENTS = (-3, -2, -1.5, -1, -0.5, 0.5, 1, 1.5, 2, 3)


def _powers(node: fx.Node, around: Around) -> Iterator[Mutation]:
    operation, args = node.meta["operation"], node.args
    sketches = around.sketches
    if operation == "pow" and isinstance(args[1], int | float):
        now = args[1]
        for exponent in dict.fromkeys((now - 1, now + 1, -now, *_EXPONENTS)):
            if exponent != now:
                by = args[0] if exponent == 1 else sketches.like(node, (args[0], exponent))
                yield Mutation(node, by, "wrong-exponent", REPLACED)  # type: ignore[arg-type]
    if operation in ("sqrt", "rsqrt", "square", "reciprocal") and is_tensor(args[0]):
        for other in ("sqrt", "rsqrt", "square", "reciprocal"):
            if other != operation:
                target = other if node.op == "call_method" else getattr(torch, other)
                yield Mutation(node, sketches.like(node, target=target, name=other), "wrong-exponent", REPLACED + 0.1)
        yield Mutation(node, args[0], "wrong-exponent", DROPPED)  # type: ignore[arg-type]
    for place, read in enumerate(args if operation in ("add", "sub", "mul", "div") and len(args) == 2 else ()):
        if is_tensor(read) and read not in around.carries:
            powers = (sketches.operation("pow", read, 2), sketches.method("sqrt", read))
            for far, power in enumerate(powers):
                by = sketches.like(node, (*args[:place], power, *args[place + 1 :]))
                yield Mutation(node, by, "wrong-exponent", WRAPPED + 0.1 * far)
    if operation == "mul" and args[0] is args[1]:
        yield Mutation(node, args[0], "wrong-exponent", DROPPED)  # type: ignore[arg-type]


def _operands(node: fx.Node, around: Around) -> Iterator[Mutation]:
    operation, sketches = node.meta["operation"], around.sketches
    if len(node.args) != 2:
        return
    a, b = node.args
    term = (is_tensor(a) and is_tensor(b)) or a in around.carries or b in around.carries
    if operation in ("add", "sub"):
        other = "sub" if operation == "add" else "add"
        yield Mutation(node, _as(node, other, around), "wrong-term-scale", REPLACED)
        if operation == "add" and not (is_tensor(a) and is_tensor(b)):  # `1 - s` for `1 + s`, whichever comes first
            yield Mutation(node, sketches.operation("sub", b, a), "wrong-term-scale", REPLACED + 0.05)
        if operation == "sub":
            yield Mutation(
                node, sketches.like(node, (b, a)), "sign" if term or not around.carries else "wrong-factor", REPLACED
            )
        for kept, dropped in ((a, b), (b, a)):
            if isinstance(kept, fx.Node) and (is_tensor(dropped) or kept is a):
                moved = dropped in around.carries
                makes = lost_from([node]) if is_tensor(dropped) else "wrong-factor"
                by = kept if kept is a or operation == "add" else sketches.operation("neg", kept)
                extra = kept in around.carries and is_tensor(dropped)
                cause = "double-counted-path" if moved else "wrong-term-scale" if extra else "wrong-factor"
                yield Mutation(node, by, cause, DROPPED, makes)
    if operation in ("mul", "div"):
        other = "div" if operation == "mul" else "mul"
        yield Mutation(node, _as(node, other, around), "wrong-factor", REPLACED + 0.2)
        for size in around.sizes if is_tensor(b) and b not in around.carries else ():
            yield Mutation(node, sketches.like(node, (a, size)), "wrong-factor", REPLACED + 0.7)
        for kept, dropped in ((a, b), (b, a)):
            if isinstance(kept, fx.Node) and is_tensor(kept) and (operation == "mul" or kept is a):
                scale = not is_tensor(dropped) or dropped.meta["val"].numel() == 1  # type: ignore[union-attr]
                if dropped in around.carries or dropped in around.gradients:
                    yield Mutation(node, kept, "double-applied", DROPPED, "upstream-dropped")
                elif scale:
                    yield Mutation(node, kept, "wrong-scale", DROPPED)
                else:
                    yield Mutation(node, kept, "double-applied", DROPPED, "missing-factor")


def _signs(node: fx.Node, around: Around) -> Iterator[Mutation]:
    yield Mutation(node, node.args[0], "sign", REPLACED)  # type: ignore[arg-type]


def _activations(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """A value before its activation in the place of that after it."""
    given = node.args[0] if len(node.all_input_nodes) == 1 and node.args else None
    if is_tensor(given) and node not in around.carries and given.meta["val"].shape == _shape(node):  # type: ignore[union-attr]
        masks = given.meta["val"].dtype is torch.bool  # type: ignore[union-attr]
        yield Mutation(node, given, "wrong-mask" if masks else "wrong-tensor", DROPPED)  # type: ignore[arg-type]


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    return getattr(node.meta["val"], "shape", None)


def _zeros(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Nothing to begin with, where the gradient from another path should be."""
    for other in around.names(node):
        if other in around.gradients and other.meta["val"].shape == node.meta["val"].shape:
            yield Mutation(node, around.sketches.method("clone", other), "lost-path", REPLACED)


def _order(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Another order of the elements, where none was wanted."""
    yield Mutation(node, node.args[0], "wrong-axis", DROPPED)  # type: ignore[arg-type]


def _numbers(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Other constants in a sum: `1 - t * t`. (Those in products are found from the ratio.)"""
    for place, value in enumerate(node.args):
        if isinstance(value, int | float) and not isinstance(value, bool):
            for other in dict.fromkeys((value + 1, value - 1, -value, 2 * value, value / 2, 0, 1)):
                if other != value and (other or node.meta["operation"] not in ("add", "sub")):
                    args = (*node.args[:place], other, *node.args[place + 1 :])
                    cause = "wrong-term-scale" if other == -value else "wrong-factor"
                    yield Mutation(node, around.sketches.like(node, args), cause, REPLACED + 0.1)


_FAMILIES = (("sin", "cos", "tan"), ("sinh", "cosh", "tanh"), ("exp", "log", "expm1", "log1p", "exp2"), ("abs", "sign", "sgn"),
             ("sigmoid", "tanh", "relu", "softplus"), ("maximum", "minimum"), ("argmax", "argmin"), ("amax", "amin"))  # fmt: skip


def _functions(node: fx.Node, around: Around) -> Iterator[Mutation]:
    operation = node.meta["operation"]
    for family in _FAMILIES:
        for other in family if operation in family else ():
            if other != operation and hasattr(torch.Tensor if node.op == "call_method" else torch, other):
                target = other if node.op == "call_method" else getattr(torch, other)
                cause = "wrong-mask" if operation in ("argmax", "argmin") else "wrong-factor"  # which element is meant
                yield Mutation(node, around.sketches.like(node, target=target, name=other), cause, REPLACED)
    if is_tensor(node.args[0]) and (len(node.args) == 1 or "softmax" in operation):
        again = operation in ("sigmoid", "tanh", "relu", "exp", "softmax")
        twice = node.args[0].meta["operation"] == operation  # type: ignore[union-attr]
        cause = "double-applied" if again else "wrong-factor"
        makes = "wrong-factor" if node in around.carries else "wrong-tensor"  # a value before its activation
        far = REPLACED - 0.1 if twice else REPLACED + 0.2 if again else DROPPED
        yield Mutation(node, node.args[0], cause, far, makes)  # type: ignore[arg-type]


_REDUCTIONS = frozenset(("sum", "mean", "amax", "amin", "var", "std", "prod", "logsumexp", "norm"))
_KINDS: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("matmul", "mm", "bmm"), (arrangements.products,)),
    **dict.fromkeys(("T", "mT", "t", "transpose", "permute"), (arrangements.transposes,)),
    **dict.fromkeys(_REDUCTIONS, (_other_axes, _other_reductions)),
    **dict.fromkeys(("softmax", "log_softmax"), (_other_axes, _functions)),
    **dict.fromkeys(("flip", "roll", "flipud", "fliplr"), (_order, _other_axes)),
    **dict.fromkeys(("cumsum", "unsqueeze", "argmax", "argmin"), (_other_axes,)),
    **dict.fromkeys((*_TURNED, "bitwise_not", "logical_not", "where", "float", "to", "type_as", "double"), (_masks,)),
    "index_put": (indices, other_rows), "getitem": (indices, other_places), "slice_scatter": (scattered,), "select_scatter": (scattered,),
    "tril": (arrangements.corners,), "triu": (arrangements.corners,), **dict.fromkeys(("tile", "repeat", "repeat_interleave"), (arrangements.repeated,)),
    "neg": (_signs,), **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), (_zeros,)),
    "masked_fill": (overwritten,), "einsum": (arrangements.einsums,), **dict.fromkeys(ONES, (instead,)), **dict.fromkeys(("reshape", "view"), (arrangements.reshapes,)),
    **dict.fromkeys(("cat", "stack", "concat"), (_other_axes, arrangements.orders)),
    "pow": (_powers,), "sqrt": (_powers,), "rsqrt": (_powers,), "square": (_powers,), "reciprocal": (_powers,),
    "add": (_operands, _numbers, _powers), "sub": (_masks, _operands, _numbers, _powers),
    "mul": (_operands, _powers), "div": (_operands, _powers),
    **dict.fromkeys({name for family in _FAMILIES for name in family} - {"amax", "amin"}, (_functions,)),
}  # fmt: skip
_KINDS["amax"] = _KINDS["amin"] = (_other_axes, _other_reductions)
