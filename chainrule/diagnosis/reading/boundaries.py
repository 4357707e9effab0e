"""Gradients told by the layers: what `layer.backward` is given is that of what the layer gave, what it returns is that of
what the layer was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.diagnosis.reading.claim import Claim, guessed
from chainrule.diagnosis.reading.handed import Call
from chainrule.program import differentiable
from chainrule.run import needed

if TYPE_CHECKING:
    from chainrule.diagnosis.truth.case import Case


def handed_claims(case: Case) -> list[Claim]:
    """A claim for each tensor that a layer's backward pass was given, and for each that it returned."""
    taken = {c.node for c in case.claims}
    used = set(needed([case.base.output]))
    found: dict[fx.Node, Claim] = {}
    last = max((c.forward.began for c in case.hand.calls if c.forward is not None), default=0)
    for call in case.hand.calls:
        forward = call.forward
        if forward is None or call.ended < last:  # of a step before the one whose loss it is
            continue
        pairs = list(zip(call.given, forward.returned, strict=False))
        inputs = [_read_by(case, forward, i, used) for i in forward.given[: len(call.returned)]]
        pairs += zip(call.returned, inputs, strict=False)  # type: ignore[arg-type]
        for node, value in pairs:
            fits = value is not None and value in case.base.gradients and _shape(value) == _shape(node)
            if fits and node not in taken and node not in case.forward:
                found.setdefault(node, guessed(node, value, case.names.get(value, value.name)))
    return list(found.values())


def _read_by(case: Case, call: Call, value: fx.Node, used: set[fx.Node]) -> fx.Node | None:
    """What a call reads as `value`: the value, or a node for it whose gradient is what comes back from that call alone."""
    gradients = case.base.gradients
    readers = [u for u in value.users if u in used and u.meta["phase"] == "forward" and differentiable(u)]
    inside = {gradients.get(u) for u in readers if _is_inside(call, u)}
    outside = {gradients.get(u) for u in readers if not _is_inside(call, u)}
    if not outside or value not in gradients:
        return value
    others = {g for v, g in gradients.items() if v is not value}
    parts = []
    for term in _terms(gradients[value], others):
        sources = {term} if term in others else set(needed([term], given=others)) & others
        if not sources or (not sources.isdisjoint(inside) and not sources.isdisjoint(outside)):
            return None
        if not sources.isdisjoint(inside):
            parts.append(term)
    if not parts:
        return None
    part, last = parts[0], gradients[value]
    for term in parts[1:]:
        total = part.meta["val"] + term.meta["val"]
        with case.graph.inserting_after(last):
            part = last = case.graph.call_function(torch.add, (part, term))
        part.meta.update(operation="add", phase="backward", val=total, site=None)
    with case.graph.inserting_after(value):
        node = case.graph.call_function(torch.ops.aten.alias.default, (value,))
    node.meta.update(operation="alias", phase="forward", val=value.meta["val"], site=None)
    gradients[node] = part
    case.forward = dict.fromkeys([*case.forward, node]).keys()
    case.names[node] = case.names.get(value, value.name)
    return node


def _is_inside(call: Call, reader: fx.Node) -> bool:
    spot = reader.meta.get("spot")
    return spot is not None and call.began <= spot.order <= call.ended


def _terms(total: fx.Node, others: set[fx.Node]) -> list[fx.Node]:
    """What a gradient is the sum of: what comes back from each reader of its value."""
    if total.meta["operation"] != "add" or total.meta["phase"] != "backward":
        return [total]
    parts = [[node] if node in others else _terms(node, others) for node in total.all_input_nodes]
    return [term for part in parts for term in part]


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(getattr(node.meta["val"], "shape", ()))
