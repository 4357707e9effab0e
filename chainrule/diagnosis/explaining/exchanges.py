"""Another value in reach in the place of one that is read, or two in the place of one another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import REPLACED, WRAPPED, Around, Mutation
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Spot, span_of
from chainrule.diagnosis.truth.sketch import is_tensor

ONES = frozenset(("ones_like", "ones", "new_ones", "full", "full_like"))
COMPARISONS = frozenset(("gt", "ge", "lt", "le", "eq", "ne"))
_FEW = 100  # elements


def other_tensors(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Another value in reach in the place of one that is read."""
    reach = around.names(node)
    for place, value in enumerate(node.args):
        if not is_tensor(value):
            continue
        masks = node.meta["operation"] in COMPARISONS or value.meta["val"].dtype is torch.bool  # type: ignore[union-attr]
        cause = "wrong-mask" if masks else "wrong-tensor"
        named = value in reach
        for other in reach:
            if other is not value and other is not node and (_may_replace(other, value) or _broadcasts(other, node)):
                args = (*node.args[:place], other, *node.args[place + 1 :])
                same = other.meta["val"].shape == value.meta["val"].shape  # type: ignore[union-attr]
                if named or (same and value not in around.carries):  # `resp.mean(1)` for `pooled`
                    far = REPLACED + 0.3 if same else REPLACED + 0.6
                    known = _instead(value, other, around) or cause
                    yield Mutation(node, around.sketches.like(node, args), known, far if named else WRAPPED + 0.2)


def instead(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """A value in reach in the place of ones."""
    for other in around.names(node):
        cause = _instead(node, other, around)
        if cause and other.meta["val"].shape == node.meta["val"].shape:
            yield Mutation(node, other, cause, REPLACED + 0.3)


def _instead(value: Any, other: fx.Node, around: Around) -> str:
    """The cause, where another value stands for ones that do nothing."""
    if value.meta["operation"] not in ONES or not other.meta["val"].dtype.is_floating_point:
        return ""
    return "upstream-dropped" if other in around.carries else "missing-factor"


def exchanged(nodes: list[fx.Node], around: Around) -> Iterator[Mutation]:
    """Two values in the place of one another, or one in the place of another wherever it is read."""
    read = [n for n in around.reach if any(n in reader.all_input_nodes for reader in nodes)]
    for value in read:
        readers = [r for r in nodes if value in r.all_input_nodes]
        for other in around.reach:
            if other is value or not _may_replace(other, value):
                continue
            both = other in read
            if both or sum(r.args.count(value) for r in readers) > 1:
                swap = {value: other, other: value} if both else {value: other}
                moved = [r for r in nodes if any(n in swap for n in r.all_input_nodes)]
                changes = [(r, around.sketches.with_inputs(r, swap)) for r in moved]
                if changes:
                    texts = {around.reach[a]: around.reach[b] for a, b in swap.items()}
                    changes[-1][1].meta["value"] = _renamed([r for r, _ in changes], texts)
                    yield Mutation(*changes[-1], "wrong-tensor", REPLACED + 0.7, changes=changes)


def _renamed(readers: list[fx.Node], texts: dict[str, str]) -> str:
    """The right side of the assignment that all of `readers` stand in, with other names; nothing if they are in several."""
    spans = [span_of(r) for r in readers]
    assigned = [source.assignment_at(s) for s in spans if s is not None]
    first = assigned[0] if assigned else None
    if first is None or len(assigned) < len(readers) or any(a is None or a.value != first.value for a in assigned):
        return ""
    names = "|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True))
    text = source.text_at(first.value)
    return re.sub(rf"(?<![\w.])({names})(?!\w|\.g\b|\.grad\b)", lambda m: texts[m[1]], text)


def given(nodes: list[fx.Node], root: fx.Node, around: Around) -> Iterator[Mutation]:
    """Another value given to a function of the person's, which the line needs: `slope(h)` for `slope(a)`."""
    spot = root.meta.get("spot")
    if spot is None:
        return
    placed = [(n, s.code) for n in nodes if (s := n.meta.get("spot")) is not None]
    for code in dict.fromkeys(c for _, c in placed if c is not spot.code):
        readers = [n for n, c in placed if c is code]
        for value in [v for v in around.reach if any(v in r.all_input_nodes for r in readers)]:
            argument = source.argument_of(code.co_name, around.reach[value], spot.code, spot.line)
            for other in around.reach if argument is not None else ():
                if other is not value and _may_replace(other, value):
                    moved = [r for r in readers if value in r.all_input_nodes]
                    changes = [(r, around.sketches.with_inputs(r, {value: other})) for r in moved]
                    changes[-1][1].meta["instead"] = argument, around.reach[other]
                    yield Mutation(root, changes[-1][1], "wrong-tensor", REPLACED + 0.4, changes=changes)


def right_factors(node: fx.Node, factors: list[fx.Node], around: Around) -> Iterator[Mutation]:
    """A factor of the right gradient in the place of what does not depend on the gradients above; of a number, too."""
    for place, value in enumerate(node.args):
        other = node.args[1 - place] if node.meta["operation"] in ("mul", "div") and len(node.args) == 2 else None
        if is_tensor(other) and not is_tensor(value):  # dout / (1 - p) for dout * mask / (1 - p)
            for factor in factors:
                for like in stretched(factor, node, around):
                    product = around.sketches.operation("mul", other, like)
                    yield Mutation(node, product, "missing-factor", WRAPPED + 1.45)
        if not is_tensor(value) or value in around.carries:
            continue
        elementwise = node.meta["operation"] in ("mul", "div")
        computed = elementwise and value not in around.names(node)
        cause = "wrong-mask" if is_mask(value) else "wrong-factor" if computed else "wrong-tensor"
        for factor in factors:
            for like in stretched(factor, node if elementwise else value, around):
                if like is not value:
                    args = (*node.args[:place], like, *node.args[place + 1 :])
                    yield Mutation(node, around.sketches.like(node, args), cause, WRAPPED + 1.45)


def right_results(node: fx.Node, factors: list[fx.Node], around: Around) -> Iterator[Mutation]:
    """A factor of the right gradient as what a function gives that is called on the line: `sigmoid_prime(z)`."""
    spot: Spot | None = node.meta.get("spot")
    for value in node.all_input_nodes if node.meta["operation"] in ("mul", "div") and spot is not None else ():
        made: Spot | None = value.meta.get("spot")
        called = made is not None and made.caller is not None and made.caller[0] is spot.code  # type: ignore[union-attr]
        for factor in factors if called and value not in around.carries else ():
            if getattr(factor.meta["val"], "shape", ()) == getattr(value.meta["val"], "shape", None):
                yield Mutation(value, factor, "wrong-factor", WRAPPED + 1.4)


def stretched(value: fx.Node, like: Any, around: Around) -> Iterator[fx.Node]:
    """A value as it can stand beside another: of its shape, or with an axis put in, to be stretched along it."""
    a, b = value.meta["val"], like.meta["val"]
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return
    if a.shape == b.shape or (a.numel() > 1 and a.shape == b.shape[b.ndim - a.ndim :]):
        yield value
    elif a.numel() > 1 and a.ndim == b.ndim - 1 and a.shape == b.shape[: a.ndim]:
        yield around.sketches.operation("getitem", value, (*[slice(None)] * a.ndim, None))


def is_mask(node: Any) -> bool:
    """Whether a value holds nothing but zeros and ones, or truth values."""
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor) or value.dtype is torch.bool:
        return isinstance(value, torch.Tensor)
    parts = value.flatten()[:_FEW], value  # of most, the first say that they are none
    return value.numel() > 1 and all(bool(((part == 0) | (part == 1)).all()) for part in parts)


_ELEMENTWISE = frozenset(("add", "sub", "mul", "div", "where"))


def _broadcasts(other: fx.Node, node: fx.Node) -> bool:
    """Whether a value can be an operand of an element-wise operation, stretched."""
    a, b = other.meta["val"], node.meta["val"]
    if node.meta["operation"] not in _ELEMENTWISE or not a.dtype.is_floating_point or a.ndim > b.ndim:
        return False
    return a.numel() > 1 and all(k in (1, n) for k, n in zip(a.shape[::-1], b.shape[::-1], strict=False))


def _may_replace(other: fx.Node, value: Any) -> bool:
    a, b = other.meta["val"], value.meta["val"]
    return isinstance(a, torch.Tensor) and a.dtype.is_floating_point == b.dtype.is_floating_point and a.ndim == b.ndim
