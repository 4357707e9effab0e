"""Identities of single elements: masks, and derivatives written from the output of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.truth.case import same
from chainrule.diagnosis.truth.equal_forms import CASTS, MOVES, Forms, Found, factors, is_number, operation, peeled
from chainrule.run import needed

_COMPARISONS = frozenset(("gt", "ge", "lt", "le", "eq", "ne", "sign", "heaviside"))
_RELUS = frozenset(("relu", "clamp", "clamp_min", "maximum", "threshold"))
_FROM_OUTPUT = {
    "sigmoid": "sigmoid-output", "tanh": "tanh-output", "exp": "exp-output", "log": "log-output",
    "sqrt": "root-output", "reciprocal": "reciprocal-output",
    "softplus": "softplus-output", "silu": "silu-output", "pow": "power-output",
}  # fmt: skip
_BY_PARTS: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = [
    ("sigmoid-output", torch.sigmoid), ("tanh-output", torch.tanh), ("silu-output", torch.nn.functional.silu),
    ("softplus-output", torch.nn.functional.softplus),
]  # fmt: skip


def masks_of_outputs(forms: Forms) -> Iterator[Found]:
    """One line compares the output of a relu with zero, the other its input."""
    for mine in forms.mine_with(*_COMPARISONS):
        for theirs in forms.theirs_with(*_COMPARISONS):
            a, b = peeled(mine.args[0], CASTS), peeled(theirs.args[0], CASTS)
            if a is not b and (_is_relu_of(a, b) or _is_relu_of(b, a)) and _same_mask(forms, mine, theirs):
                yield "mask-of-output", mine


def mask_forms(forms: Forms) -> Iterator[Found]:
    """The same gradient behind a mask, selected where the derived line multiplies, or selects in another way. (The
    product with a mask is what everybody writes.)"""
    for mine in forms.mine_with("where", "masked_fill", "index_put"):
        sort = _mask_sort(mine)
        theirs = forms.match(mine, *({"mul", "where", "masked_fill"} - {sort})) if sort else None
        if theirs is not None and _mask_sort(theirs) not in (None, sort):
            yield "mask-form", mine


def squares(forms: Forms) -> Iterator[Found]:
    found = [f for n in forms.mine_with("mul") for f in factors(n) if isinstance(f, fx.Node)]
    for below in (f for f in found if operation(f) == "sub" and f.args[0] == 1):
        for above in (f for f in found if operation(f) == "add" and 1 in f.args):
            t = below.args[1]
            if t in above.args and any(operation(d) == "sub" and _is_square_of(d.args[1], t) for d in forms.theirs):
                yield "difference-of-squares", below


def from_input(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with("cosh"):
        if any(operation(y) == "tanh" and y.args[0] is mine.args[0] for y in forms.read_by_them):
            yield "tanh-input", mine


def from_output(forms: Forms) -> Iterator[Found]:
    """The person reads the output of a function, the derived line its input."""
    for y in (n for n in forms.read_by_me if n not in forms.read_by_them):
        slug = _slug(y)
        if slug is None:
            continue
        x = y.args[0] if operation(y) != "div" else y.args[-1]
        if x is forms.claim.value and x in forms.read_by_them - forms.read_by_me:
            yield slug, next(n for n in forms.mine if y in n.all_input_nodes)


def by_parts(forms: Forms) -> Iterator[Found]:
    """A sigmoid that the forward pass computes in steps, differentiated as one."""
    z = forms.claim.value
    for above in forms.above:
        y = above.value
        if y not in forms.read_by_me or y.meta["val"].shape != z.meta["val"].shape or z in y.all_input_nodes:
            continue
        between = set(needed([y], given=[z])) - {y, z}
        if not between & forms.read_by_them or between & forms.read_by_me:
            continue
        for slug, function in _BY_PARTS:
            if all(z in p.values and same(p.values.get(y), function(p.values[z])) for p in forms.points.all()):
                yield slug, next(n for n in forms.mine if y in n.all_input_nodes)


def multiplied_out(forms: Forms) -> Iterator[Found]:
    """g - g * a on one side, g * (1 - a) on the other."""
    for mine in forms.mine_with("sub", "add"):
        theirs = forms.match(mine, "mul") if _shared_factor(mine) else None
        if theirs is not None and any(operation(f) in ("sub", "add", "rsub") for f in factors(theirs)):
            yield "multiplied-out", mine
    for mine in forms.mine_with("mul"):
        if any(operation(f) in ("sub", "add", "rsub") and f in forms.mine for f in factors(mine)):
            theirs = forms.match(mine, "sub", "add")
            if theirs is not None and not theirs.meta.get("accumulated") and _shared_factor(theirs):
                yield "multiplied-out", mine


RULES = [masks_of_outputs, squares, from_input, by_parts, from_output, multiplied_out, mask_forms]


def _is_relu_of(y: Any, x: Any) -> bool:
    if operation(y) not in _RELUS or not y.args or y.args[0] is not x:
        return False
    low = y.args[1] if len(y.args) > 1 else y.kwargs.get("min", 0)
    return low == 0 or (isinstance(low, fx.Node) and not bool(torch.as_tensor(low.meta["val"]).any()))


def _same_mask(forms: Forms, mine: fx.Node, theirs: fx.Node) -> bool:
    """Whether two masks are equal, or each is what the other is not, at every point."""
    for point in forms.points.all():
        a, b = point.values.get(mine), point.values.get(theirs)
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.shape != b.shape:
            return False
        a, b = a > 0, b > 0
        if not torch.equal(a, b) and not torch.equal(a, ~b):
            return False
    return True


def _mask_sort(node: fx.Node) -> str | None:
    """How a mask is applied in `node`; None where there is none."""
    name = operation(node)
    if name == "mul":
        return "mul" if any(_is_mask(a) for a in node.args) else None
    if name == "index_put":
        index, value = node.args[1], node.args[2]
        key = index[0] if isinstance(index, tuple | list) and len(index) == 1 else index
        return "index_put" if _is_mask(key) and _is_zero(value) else None
    if name == "where" and len(node.args) == 3:
        return "where" if _is_mask(node.args[0]) and any(_is_zero(a) for a in node.args[1:]) else None
    return name if name == "masked_fill" and _is_zero(node.args[2]) else None


def _is_mask(node: Any) -> bool:
    value = getattr(peeled(node, CASTS), "meta", {}).get("val")
    return isinstance(value, torch.Tensor) and value.dtype is torch.bool


def _is_zero(value: Any) -> bool:
    if isinstance(value, fx.Node):
        return operation(peeled(value)) in ("zeros_like", "zeros", "new_zeros", "tensor") and not bool(
            torch.as_tensor(value.meta["val"]).any()
        )
    return isinstance(value, int | float) and value == 0


def _is_square_of(node: Any, t: Any) -> bool:
    return [f for f in factors(node) if not is_number(f)] == [t, t]


def _slug(y: fx.Node) -> str | None:
    name = operation(y)
    if not y.args:
        return None
    if name == "div":
        return "reciprocal-output" if y.args[0] in (1, 1.0) else None
    if name == "pow" and len(y.args) > 1:
        if not isinstance(y.args[1], int | float):
            return None
        return {0.5: "root-output", -1: "reciprocal-output"}.get(y.args[1], "power-output")
    return _FROM_OUTPUT.get(name)


def _shared_factor(node: fx.Node) -> bool:
    """Whether both summands of `node` have a factor in common."""
    if len(node.args) != 2 or not all(isinstance(a, fx.Node) for a in node.args):
        return False
    left, right = ([f for f in factors(a) if isinstance(f, fx.Node) and not is_number(f)] for a in node.args)
    return bool(set(left) & set(right)) and (operation(node.args[0]) in MOVES | {"mul", "div"} or len(right) > 1)
