"""Of which value something that was returned is the gradient, by the keys that lead to it or by its name."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import fx

from chainrule.diagnosis.reading.claim import alike, names_meant
from chainrule.diagnosis.reading.in_lists import InLists
from chainrule.program import differentiable
from chainrule.recording.numbers import Tracked


class Item(NamedTuple):
    """Something in what was returned."""

    label: str
    value: Any
    way: tuple[str, ...]  # the keys that lead to it
    turned: tuple[str, ...]  # the same, with lists counted from their end


class ByName(InLists):
    """The values that keys and names mean."""

    def _meant_by(self, returned: Item) -> fx.Node | None:
        """The value of which something that was returned is the gradient: by its keys, or by its name."""
        if (standing := self._standing_at(returned.way)) is not None:
            return standing
        value = self._meant(returned.label, None)
        return value if value is None or value.op == "placeholder" else self._of_its_name(value, returned)

    def _of_its_name(self, value: fx.Node, returned: Item) -> fx.Node | None:
        """Of all that a name stood for in the forward pass, `h = h0` and then `h = tanh(h @ w)`, that whose gradient was
        returned; None where it is that of a plain number."""
        stood = self._stood_for(value)
        nodes = [n for n in stood if isinstance(n, fx.Node)]
        if len(stood) < 2:
            return value
        truth = self.truths()
        right = [n for n in nodes if alike(returned.value, n.meta["val"].shape, truth(n))]
        if right or returned.label not in self._in_turns():
            return next(iter(right), value)
        return nodes[0] if len(nodes) == len(stood) else None  # the loop of the backward pass comes back to the first

    def _stood_for(self, value: fx.Node) -> list[Any]:
        """What the name of a value stood for, in order, where the code computed it."""
        spot, name = value.meta.get("spot"), value.meta.get("name")
        found: dict[Any, None] = {}
        for node in self.recorder.graph.nodes:
            at = node.meta.get("spot")
            if (
                node in self.used
                and at is not None
                and spot is not None
                and (at.code, at.call) == (spot.code, spot.call)
            ):
                held = at.names.get(name)
                known = [held] if held in self.used or isinstance(held, int | float | Tracked) else []
                found.update(dict.fromkeys([*known, *([node] if node.meta.get("name") == name else [])]))
        return list(found)

    def _in_turns(self) -> set[str]:
        """Names that one line outside the forward pass binds several times, in a loop: each to another gradient."""
        found: dict[tuple[str, Any, int], int] = {}
        for node in self.recorder.graph.nodes:
            name, spot = node.meta.get("name"), node.meta.get("spot")
            if name and spot is not None and node not in self.forward and "same_as" not in node.meta:
                key = name, spot.code, spot.index
                found[key] = found.get(key, 0) + 1
        return {name for (name, _, _), times in found.items() if times > 1}

    def _standing_at(self, way: tuple[str, ...]) -> fx.Node | None:
        """The input that stands at the same keys, of two levels at least: `P["l1"]["w"]` for `G["l1"]["w"]`."""
        keys = [{key, *names_meant(key)} for key in reversed(".".join(way).split("."))]
        found: dict[int, list[fx.Node]] = {}
        for node, name in self.names.items():
            if node.op == "placeholder" and node in self.used and differentiable(node):
                alike = [part in key for key, part in zip(keys, reversed(name.split(".")), strict=False)]
                found.setdefault([*alike, False].index(False), []).append(node)
        longest = max(found, default=0)
        return found[longest][0] if longest > 1 and len(found[longest]) == 1 else None
