"""Gradients that some code returns in lists, one for each parameter of a list: `nabla_w`, and `self.weights`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.claim import Claim, Values, alike, tensor_in
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.reading.lists import returned_of
from chainrule.program import differentiable

Groups = dict[str, list[fx.Node]]


class InLists(Values):
    """The gradients in returned lists."""

    def __init__(
        self,
        hand: Handwritten,
        names: dict[fx.Node, str],
        forward: set[fx.Node],
        truths: Callable[[], Callable[[fx.Node], torch.Tensor]],  # computes the right gradients
    ) -> None:
        super().__init__(hand, names, forward)
        self.truths = truths

    def in_lists(self, result: Any) -> tuple[list[Claim], Any]:
        """Those in what was returned, and the rest of it."""
        groups = self._groups()
        found: list[Claim] = []
        rest = []
        for part in result if groups and type(result) is tuple else [result]:
            claims = self._of_list(part, groups) if groups and _is_list(part) and not self._is_told(part) else []
            found += claims
            rest += [] if claims else [part]
        once = len({c.value for c in found}) == len(found)
        return (found, tuple(rest)) if found and once else ([], result)

    def _is_told(self, part: list[torch.Tensor]) -> bool:
        """Whether what stands in a list has names of its own."""
        raise NotImplementedError

    def _of_list(self, part: list[torch.Tensor], groups: Groups) -> list[Claim]:
        """The gradients in one list, in the order in which most are right."""
        name = next((k for k, v in self.recorder.locals.items() if type(v) is list and _are_one(v, part)), "")
        lists = returned_of(name, part, {k: [n.meta["val"] for n in nodes] for k, nodes in groups.items()})
        if lists is None:
            return []
        nodes = {id(n.meta["val"]): n for held in groups.values() for n in held}
        truth = self.truths()
        pairs = [list(zip([nodes[id(t)] for t in of], part, strict=True)) for of in lists.orders()]
        best = max(pairs, key=lambda order: sum(alike(g, n.meta["val"].shape, truth(n)) for n, g in order))
        return [self._claim(n, f"{name}[{i}]" if name else "", g) for i, (n, g) in enumerate(best)]

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
