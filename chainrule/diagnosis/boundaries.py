"""Gradients told by the layers: what `layer.backward` is given is that of what the layer gave, what it returns is that of
what the layer was given."""

from __future__ import annotations

from torch import fx

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.claims import Claim
from chainrule.diagnosis.handed import Call
from chainrule.program import differentiable
from chainrule.run import needed


def handed_claims(case: Case) -> list[Claim]:
    """A claim for each tensor that a layer's backward pass was given, and for each that it returned."""
    taken = {c.node for c in case.claims}
    used = set(needed([case.base.output]))
    found: dict[fx.Node, Claim] = {}
    for call in case.hand.calls:
        forward = call.forward
        if forward is None:
            continue
        pairs = list(zip(call.given, forward.returned, strict=False))
        inputs = [(i if _only_read_by(forward, i, used) else None) for i in forward.given]
        pairs += zip(call.returned, inputs[: len(call.returned)], strict=False)  # type: ignore[arg-type]
        for node, value in pairs:
            fits = value is not None and value in case.base.gradients and _shape(value) == _shape(node)
            if fits and node not in taken and node not in case.forward:
                found.setdefault(node, _claim(case, node, value))
    return list(found.values())


def _only_read_by(call: Call, value: fx.Node, used: set[fx.Node]) -> bool:
    """Whether nothing outside of a call reads a value: then the gradient that comes back from there is all of it."""
    readers = [u for u in value.users if u in used and u.meta["phase"] == "forward" and differentiable(u)]
    spots = [u.meta.get("spot") for u in readers]
    return all(s is not None and call.began <= s.order <= call.ended for s in spots)


def _claim(case: Case, node: fx.Node, value: fx.Node) -> Claim:
    name = case.names.get(value, value.name)
    told = str(node.meta.get("name") or f"the gradient of {name}")
    return Claim(value, node, node.meta["val"], name, told, node.meta.get("spot"), False)


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(getattr(node.meta["val"], "shape", ()))
