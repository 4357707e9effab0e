"""Heat maps: a value beside its gradient, and a Jacobian with the names of its rows and columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from chainrule.errors import ChainruleError
from chainrule.jacobian import Jacobian
from chainrule.pictures import grid, svg
from chainrule.pictures.svg import Picture
from chainrule.traces.summary import in_words

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

PANEL = 400.0  # width of one heat map
CELL = 48.0  # the largest cell
GAP, MARGIN = 36.0, 12.0
TITLE, LABEL = 22.0, 14.0
NAMED = 40  # rows and columns of a Jacobian whose names are written


def of_value(d: Derivation, name: str) -> Picture:
    """A value and its gradient, in one layout; see `Derivation.picture`."""
    name = name if name in d.names else name.removesuffix(".g")
    node = d.node(name)
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor) or not value.numel():
        raise ChainruleError(
            f"{name} {tuple(getattr(value, 'shape', ()))} has no elements to draw; name another value",
            node.meta.get("site"),
        )
    gradient = d._gradient(node)
    drawn = {name: value.detach()} | ({f"{name}.g": gradient} if gradient is not None else {})
    return of_tensors(drawn, f"{name} beside its gradient", "" if gradient is not None else f"{name} has no gradient")


def of_tensors(tensors: Mapping[str, torch.Tensor], title: str, note: str = "") -> Picture:
    """Tensors by name, one beside the other, and a note where the next would be."""
    parts, height, x = [], 0.0, MARGIN
    for name, tensor in tensors.items():
        drawn, high = _panel(name, tensor, x, MARGIN)
        parts += drawn
        height, x = max(height, high), x + PANEL + GAP
    words = [f"{name} {tuple(t.shape)}: {in_words(t)}" for name, t in tensors.items()]
    if note:
        words.append(note)
        parts.append(svg.text(x, MARGIN + 14, note))
    width = 2 * PANEL + GAP + 2 * MARGIN
    return Picture(width, height + 2 * MARGIN, title, ". ".join(words), parts)


def _panel(title: str, value: torch.Tensor, x: float, y: float) -> tuple[list[str], float]:
    """One heat map with its title, the indices along its sides and its scale; and how high it is."""
    small = grid.reduced(value)
    rows, columns = small.values.shape
    beside = _named(small.rows, rows) if value.ndim > 1 else []
    left, top = x + svg.width_of(f"{max(beside, default=0)}", 10.5) + 5, y + TITLE + LABEL
    cell = min(CELL, (x + PANEL - left) / columns, max(8.0, 460.0 / rows))
    high, most = cell if rows > 1 else max(cell, 18.0), grid.largest(small.values)
    head = svg.text(x, y + 12, f"{title} {tuple(value.shape)}", style="font-weight:bold")
    above = _named(small.columns, columns) if value.ndim else []
    parts = [head]
    for c in _spaced(len(above), cell, svg.width_of(f"{max(above, default=0)}", 10.5) + 6):
        parts.append(svg.text(left + (c + 0.5) * cell, top - 4, str(above[c]), "middle", 10.5))
    for r in _spaced(len(beside), high, 13.0):
        parts.append(svg.text(left - 4, top + (r + 0.5) * high + 3.5, str(beside[r]), "end", 10.5))
    parts += grid.cells(small.values, left, top, cell, high, most)
    bottom = top + rows * high + 12
    parts.append(grid.scale(left, bottom, 240.0, most))
    bottom += 38
    for line in svg.filled(small.note.split(), int(PANEL / svg.width_of("0"))):
        parts.append(svg.text(left, bottom, line, size=10.5))
        bottom += 14
    return [svg.group(parts, title=f"{title}: {in_words(value)}")], bottom - y


def of_jacobian(jacobian: Jacobian) -> Picture:
    """A Jacobian as a heat map; the names of rows and columns where they fit, else of the first and last."""
    small = grid.reduced(jacobian.matrix, NAMED)
    rows, columns = small.values.shape
    if not small.values.numel():
        raise ChainruleError(f"{jacobian.title} has no entries to draw; name another value")
    most = grid.largest(small.values)
    beside = [jacobian.row(r) for r in _named(small.rows, rows)]
    above = [jacobian.column(c) for c in _named(small.columns, columns)]
    left = MARGIN + svg.width_of("0" * max(map(len, beside)), 10.5) + 6
    head = svg.width_of("0" * max(map(len, above)), 10.5) + 6
    top = MARGIN + TITLE + head
    cell = min(CELL, (svg.WIDEST - left - MARGIN) / columns)
    high = max(13.0, min(cell, 24.0)) if rows <= 30 else 12.0
    cell = max(cell, 13.0)
    parts = [svg.text(MARGIN, MARGIN + 12, f"d({jacobian.of})/d({jacobian.wrt})", style="font-weight:bold")]
    parts += grid.cells(small.values, left, top, cell, high, most)
    for r, name in enumerate(beside):
        parts.append(svg.text(left - 5, top + (r + 0.5) * high + 3.5, name, "end", 10.5))
    for c, name in enumerate(above):
        x, y = left + (c + 0.5) * cell + 3.5, top - 5
        parts.append(
            svg.group([svg.text(0, 0, name, size=10.5)], f"transform:translate({x:.1f}px,{y:.1f}px) rotate(-90deg)")
        )
    bottom = top + rows * high + 12
    parts.append(grid.scale(left, bottom, 240.0, most))
    bottom += 40
    named = f"{small.note} and bears the names of the first" if "mean" in small.note else small.note
    for note in (named, jacobian.note):
        if note:
            parts.append(svg.text(left, bottom, note, size=10.5))
            bottom += 14
    words = f"{jacobian.title}. {in_words(jacobian.matrix)}. {' '.join([named, jacobian.note])}".strip()
    width = max(left + columns * cell + MARGIN, left + 260, left + max(len(named), len(jacobian.note)) * 6.4)
    return Picture(width, bottom + MARGIN, jacobian.title, words, parts)


def _named(count: int, drawn: int) -> list[int]:
    """The first element of each row that is drawn."""
    each = -(-count // drawn)
    return list(range(0, count, each))


def _spaced(count: int, size: float, room: float) -> range:
    """Which of so many rows or columns have room for a label.

    >>> list(_spaced(4, 20.0, 10.0)), list(_spaced(4, 5.0, 10.0))
    ([0, 1, 2, 3], [0, 2])
    """
    return range(0, count, max(1, math.ceil(room / size)))
