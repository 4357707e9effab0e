"""Values on the way that several wrong gradients are computed from, and that should be the gradient of something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx

from chainrule.diagnosis.reading.claim import Claim, guessed
from chainrule.diagnosis.truth.case import Case, same
from chainrule.program import differentiable

if TYPE_CHECKING:
    from chainrule.diagnosis.locating.locate import Wrong

_TRIED = 400  # values on the way, each as one gradient


def shared_gradient(case: Case, wrong: Sequence[Wrong], taken: Iterable[Claim]) -> Claim | None:
    """A value that several wrong gradients read, where all of them would be right if it were a certain gradient."""
    nodes, values = {c.node for c in taken}, {c.value for c in taken}
    readers: dict[fx.Node, list[Wrong]] = {}
    for each in wrong:
        for node in each.mine:
            if node not in nodes and _is_value(node) and case.in_backward(node):
                readers.setdefault(node, []).append(each)
    shared = {node: several for node, several in readers.items() if len(several) > 1}
    left = _TRIED
    for node in sorted(shared, key=_position(case)):
        alike = _of_shape(case, node)
        if any(same(case.here.values.get(node), case.here.truth(value)) for value in alike):
            continue  # what is right already
        for value in alike:
            left -= 1
            if (
                left > 0
                and value not in values
                and all(mended(case, each.claim, each.above, node, value) for each in shared[node])
            ):
                return guessed(node, value, case.names.get(value, value.name))
    return None


def mended(case: Case, claim: Claim, above: Sequence[Claim], node: fx.Node, value: fx.Node) -> bool:
    """Whether a wrong gradient would be right if `node` were the gradient of `value`."""
    standing = Claim(value, node, node.meta["val"], "", "", None)
    fed = case.fed(claim, [*above, standing], case.here)
    return fed is not None and same(fed, case.here.truth(claim.value))


def _of_shape(case: Case, node: fx.Node) -> list[fx.Node]:
    """The values of the forward pass whose gradients have the shape of `node`."""
    values = (v for v in case.forward if v in case.base.gradients and not is_opposite(v))
    return [v for v in values if v.meta["val"].shape == node.meta["val"].shape]


def is_opposite(value: fx.Node) -> bool:
    """Whether a value is another's opposite without a name, `-z` in `exp(-z)`: nobody keeps its gradient, and a wrong sign
    is no such one."""
    return not value.meta.get("name") and value.meta["operation"] == "neg"


def _position(case: Case) -> Callable[[fx.Node], int]:
    place = {node: i for i, node in enumerate(case.graph.nodes)}
    return lambda node: place[node]


def _is_value(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.numel() > 1 and differentiable(node) and "spot" in node.meta
