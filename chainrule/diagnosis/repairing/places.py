"""How places in lists are written: `hs[t - 1]` in a loop, not `hs[3]`; `zs[-l]`, and `zs[-1]`, where the code counts from
the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import HELD, Spot

_PLACE = re.compile(r"^([^\[]*)\[(-?\d+)\]")  # below zero: of a dictionary, `hs[-1]` before the first turn


class Places:
    """The places in lists, as one line writes them: in one turn of a loop."""

    def __init__(self, spot: Spot) -> None:
        variables = source.loop_variables(spot.file, spot.line)
        self.name = next((v for v in variables if type(spot.names.get(v)) is int), None)
        self.now: int = spot.names[self.name] if self.name is not None else 0
        self.lengths = _lengths(spot.names)
        text = "\n".join(source.lines_of(spot.file)[spot.code.co_firstlineno - 1 : spot.line])
        index = rf"{self.name}\b" if self.name is not None else r"\d"
        self.from_the_end = set(re.findall(rf"([\w.]+)\[-\s*{index}", text))
        by_turn = re.findall(rf"([\w.]+)\[[^\]]*\b{self.name}\b", text)
        self.by_number = set(re.findall(r"([\w.]+)\[\d", text)).difference(by_turn)  # `self.grads[1]`, in any turn
        read = re.findall(r"([\w.]+)\[", source.line_at(spot.file, spot.line)) if self.name is not None else []
        self.read = set(read)  # the lists of which the line reads an entry

    def written(self, text: str) -> str:
        """`hs[3]`, as it is written in this turn."""
        if (m := _PLACE.match(text)) is None:
            return text
        stem, place = m[1], int(m[2])
        backwards = stem in self.from_the_end and stem in self.lengths and place >= 0
        if backwards:
            place -= self.lengths[stem]
        if self.name is None or stem in self.by_number:
            return f"{stem}[{place}]{text[m.end() :]}"
        for offset, said in ((0, ""), (-1, " - 1"), (1, " + 1")):
            if place == (-self.now if backwards else self.now) + offset:
                return f"{stem}[{'-' if backwards else ''}{self.name}{said}]{text[m.end() :]}"
        return text

    def is_of_the_turn(self, text: str) -> bool:
        """Whether a text names the entry of a list of which the line reads another one in this turn."""
        stem, _, place = text.partition("[")
        return self.name is not None and stem in self.read and self.name in re.findall(r"\w+", place.partition("]")[0])


def _lengths(names: Mapping[str, Any]) -> dict[str, int]:
    """How long the lists are of which entries have names."""
    found: dict[str, int] = {}
    for text in names:
        if (m := _PLACE.match(text)) is not None:
            found[m[1]] = max(found.get(m[1], 0), int(m[2]) + 1)
    return {text: length for text, length in found.items() if length < HELD}  # of longer ones not all are looked at
