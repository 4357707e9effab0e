"""What can be named at a place of a person's code: values, sizes and numbers, under which names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.numbers import Numbers
from chainrule.diagnosis.repairing.places import Places
from chainrule.diagnosis.repairing.style import Style
from chainrule.diagnosis.repairing.wording import NamedSizes
from chainrule.recording import Recorder
from chainrule.recording.numbers import Tracked

if TYPE_CHECKING:
    from chainrule.diagnosis.truth.case import Point


_PLACE = re.compile(r"\[(-?\d+)\]")


class Reach:
    """The names that one line of the person's can use, and the nodes that they stand for."""

    def __init__(
        self, spot: Spot, recorder: Recorder, without: str = "", resized: Callable[[], Point | None] | None = None
    ) -> None:
        """`without` is a name that the line itself sets; `resized` tells which sizes are tied to one another."""
        self.names: dict[fx.Node, str] = {}
        self.nodes: dict[str, fx.Node] = {}  # by every name
        self.space, self.arrays = spot.space, spot.arrays
        self.sizes: dict[fx.Node, str] = {}
        self.numbers: dict[str, float] = {}
        self.integers: dict[str, int] = {}  # sizes too
        self.places, self.style = Places(spot), Style(spot.file)
        constants: dict[int, list[fx.Node]] = {}  # arrays of NumPy's own, by what was read of them
        for made in recorder.graph.nodes:
            if made.meta.get("operation") == "tensor" and made.args and isinstance(made.args[0], np.ndarray):
                constants.setdefault(id(made.args[0]), []).append(made)
        for text, held in spot.names.items():
            if isinstance(held, np.ndarray):
                self.names.update(dict.fromkeys(constants.get(id(held), ()), text))
                continue
            node = held if text != without else None
            text = self.style.quoted(self.places.written(text))
            if isinstance(held, torch.Tensor):
                entry = recorder.entry(held)
                node = entry.node if entry is not None else None
            if (
                isinstance(held, int | Tracked)
                and type(value := held.plain() if isinstance(held, Tracked) else held) is int
            ):
                self.integers[text] = value
            if type(held) in (int, float):
                self.numbers[text] = held
            elif isinstance(held, Tracked):
                if held._made is not None:
                    self.sizes.setdefault(held._made, text)
            elif isinstance(node, fx.Node):
                self.nodes[text] = node
                if self._is_better(node, text):
                    self.names[node] = text
        self.held: Mapping[str, Any] = spot.names
        self.known_numbers = Numbers(spot, self.numbers, recorder.graph.nodes)
        self._spot, self._resized = spot, resized
        for node, text in list(self.names.items()):  # under the name of what was saved, what it was
            self.names.setdefault(node.meta.get("same_as", node), text)

    @cached_property
    def named_sizes(self) -> NamedSizes:
        return NamedSizes(self._spot, self.nodes, self._resized() if self._resized is not None else None)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tuples of whole numbers that have a name: `self.shape`."""
        found: dict[str, list[int]] = {}
        for text, value in self.integers.items():
            if (place := _PLACE.search(text)) is not None and place.end() == len(text):
                held = found.setdefault(text[: place.start()], [])
                if int(place[1]) == len(held):
                    held.append(value)
        return {text: tuple(sizes) for text, sizes in found.items()}

    def _is_better(self, node: fx.Node, text: str) -> bool:
        known = self.names.get(node)
        return known is None or self._far(known) > self._far(text)

    def _far(self, text: str) -> tuple[bool, int, int]:
        return not self.places.is_of_the_turn(text), text.count("."), len(text)
