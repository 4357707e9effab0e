"""Gradients that some code returns in lists, one for each parameter of a list: `nabla_w`, and `self.weights`."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.claim import Claim, Values, alike, tensor_in
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.reading.lists import returned_of, says_gradients
from chainrule.errors import Untold
from chainrule.program import differentiable

Groups = dict[str, list[fx.Node]]


class InLists(Values):
    """The gradients in returned lists."""

    def __init__(
        self,
        hand: Handwritten,
        names: dict[fx.Node, str],
        forward: Set[fx.Node],
        truths: Callable[[], Callable[[fx.Node], torch.Tensor]],  # computes the right gradients
    ) -> None:
        super().__init__(hand, names, forward)
        self.truths = truths
        self.notes: list[str] = []
        self.unsaid: list[str] = []  # names of returned numbers that are the gradient of no input
        self.untouched: list[str] = []  # lists of gradients into which the run wrote nothing

    def in_lists(self, result: Any, is_told: Callable[[list[torch.Tensor]], bool]) -> tuple[list[Claim], Any]:
        """Those in what was returned, and the rest of it; what stands in a list and `is_told` by names of its own is rest."""
        groups = self._groups()
        found: list[Claim] = []
        rest = []
        for part in result if groups and type(result) is tuple else [result]:
            claims = self._of_list(part, groups) if groups and _is_list(part) and not is_told(part) else []
            found += claims
            rest += [] if claims else [part]
        once = len({c.value for c in found}) == len(found)
        return (found, tuple(rest)) if found and once else ([], result)

    def _of_list(self, part: list[torch.Tensor], groups: Groups) -> list[Claim]:
        """The gradients in one list, in the order in which most are right."""
        name = next((k for k, v in self.recorder.locals.items() if type(v) is list and _are_one(v, part)), "")
        nodes = {id(n.meta["val"]): n for held in groups.values() for n in held}
        truth = self.truths()
        best: list[tuple[int, list[fx.Node]]] = []  # of each group, how many are right in which order
        for lists in returned_of(name, part, {k: [n.meta["val"] for n in of] for k, of in groups.items()}):
            orders = [[nodes[id(t)] for t in of] for of in lists.orders()]
            right = [
                sum(alike(g, n.meta["val"].shape, truth(n)) for n, g in zip(of, part, strict=True)) for of in orders
            ]
            best.append((max(right), orders[right.index(max(right))]))
        most = max((right for right, _ in best), default=0)
        found = [order for right, order in best if right == most]
        if len(found) > 1 and says_gradients(name):
            raise Untold(
                f"{self.hand.asked.name} returned {name}, which may be the gradients of several lists of parameters; say of "
                'what they are, in order: wrt=["w", "b"]'
            )
        if len(found) != 1 or not (most or says_gradients(name)):  # parameters after a step, a momentum
            return []
        return [
            self._claim(n, f"{name}[{i}]" if name else "", g)
            for i, (n, g) in enumerate(zip(found[0], part, strict=True))
        ]

    def _groups(self) -> Groups:
        """The inputs that stand in a list each, in order."""
        found: dict[str, dict[int, fx.Node]] = {}
        for node, name in self.names.items():
            stem, _, place = name.rpartition(".")
            if node.op == "placeholder" and node in self.used and stem and place.isdigit() and differentiable(node):
                found.setdefault(stem, {})[int(place)] = node
        return {k: [held[i] for i in sorted(held)] for k, held in found.items()}


def _is_list(part: Any) -> bool:
    return isinstance(part, list) and len(part) > 1 and all(isinstance(v, torch.Tensor) for v in part)


def _are_one(held: list[Any], part: list[torch.Tensor]) -> bool:
    return len(held) == len(part) and all(tensor_in(a) is b for a, b in zip(held, part, strict=True))
