"""Parameters that the code changes before it uses them: weights that decay, are clipped, or normed. The gradient that it
then leaves of them is that of what they are now, or of what they were."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from chainrule.program import differentiable
from chainrule.run import needed


def before_renewal(node: fx.Node, labels: Iterable[str]) -> fx.Node | None:
    """The parameter that one of the `labels` names, and of which alone a value of the same shape was made; else None."""
    inputs = [n for n in needed([node]) if n.op == "placeholder" and differentiable(n)]
    if node.op == "placeholder" or len(inputs) != 1 or inputs[0].meta["operation"] != "input":
        return None
    named = (inputs[0].meta.get("name") or "").split(".")[-1] in set(labels)
    return inputs[0] if named and inputs[0].meta["val"].shape == node.meta["val"].shape else None


def written_into(parameter: fx.Node, used: Iterable[fx.Node]) -> fx.Node | None:
    """What a parameter is after it was changed in place on the way to the loss, and by nothing but itself; else None."""
    name = str(parameter.meta.get("name") or parameter.name)
    found = [n for n in used if n.meta.get("written") and n.meta.get("name") in (name, None)]
    of = [n for n in found if before_renewal(n, [name.split(".")[-1]]) is parameter]
    return of[-1] if of else None


def renewed_from(node: fx.Node) -> fx.Node:
    """The parameter that a value was before it was changed, where its gradient was told by that."""
    before = node.meta.get("renews")
    return before if isinstance(before, fx.Node) else node
