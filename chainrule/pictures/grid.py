"""A tensor as a grid of coloured cells: rows and columns, large ones reduced to the means of blocks.

Blue is negative, orange positive, zero is pale; the darker the further from zero. Negative cells have a bar, so that
the sign is there in black and white as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from chainrule.pictures import svg
from chainrule.show import table

MOST = 32  # rows and columns; more are reduced to blocks
_NEGATIVE, _ZERO, _POSITIVE = (22, 82, 160), (244, 244, 242), (190, 84, 12)
LIGHT, DARK = "#ffffff", "#1a1a1a"
LOST = "#b9b9b9"  # of cells that are NaN or infinite


@dataclass(frozen=True)
class Reduced:
    """A matrix that is small enough to be drawn, and what was done to make it so."""

    values: torch.Tensor  # float64, two dimensions
    note: str  # empty where every cell is an element
    rows: int  # of the matrix before it was reduced
    columns: int


def as_matrix(value: torch.Tensor) -> torch.Tensor:
    """Two dimensions: a vector is a row, all but the first dimension of more are one after another.

    >>> as_matrix(torch.zeros(3)).shape, as_matrix(torch.zeros(2, 3, 4)).shape
    (torch.Size([1, 3]), torch.Size([2, 12]))
    """
    value = value.detach()
    if value.ndim < 2:
        return value.reshape(1, -1)
    return value.reshape(value.shape[0], math.prod(value.shape[1:]))


def reduced(value: torch.Tensor, most: int = MOST) -> Reduced:
    """At most `most` rows and columns, each the mean of a block.

    >>> reduced(torch.arange(6.), 3).values, reduced(torch.arange(6.), 3).note
    (tensor([[0.5000, 2.5000, 4.5000]], dtype=torch.float64), 'each cell is the mean of 2 elements')
    """
    matrix = as_matrix(value)
    rows, columns = matrix.shape
    matrix = (matrix.abs() if matrix.is_complex() else matrix).double()
    notes = ["sizes of complex numbers"] if value.is_complex() else []
    if value.ndim > 2:
        notes.append(f"{tuple(value.shape)} as {rows:,} rows of {columns:,}")
    high, wide = -(-rows // most), -(-columns // most)
    if high > 1 or wide > 1:
        heights = torch.arange(rows, device=matrix.device) // high
        widths = torch.arange(columns, device=matrix.device) // wide
        sums = torch.zeros(-(-rows // high), columns, dtype=torch.float64, device=matrix.device)
        sums = sums.index_add(0, heights, matrix)
        total = torch.zeros(len(sums), -(-columns // wide), dtype=torch.float64, device=matrix.device)
        total = total.index_add(1, widths, sums)
        counts = torch.bincount(heights)[:, None] * torch.bincount(widths)[None, :]
        matrix = total / counts
        size = f"{high} x {wide}" if high > 1 and wide > 1 else f"{high * wide}"
        notes.append(f"each cell is the mean of {size} elements")
    return Reduced(matrix.cpu(), "; ".join(notes), rows, columns)


def largest(values: torch.Tensor) -> float:
    """The end of the scale: the largest finite size; 1 where all is zero.

    >>> largest(torch.tensor([1., -3., float("inf")])), largest(torch.zeros(2))
    (3.0, 1.0)
    """
    finite = values[torch.isfinite(values)]
    return (float(finite.abs().max()) if finite.numel() else 0.0) or 1.0


def colour(value: float, most: float) -> str:
    """The colour of a number on a scale from -most to most."""
    if not math.isfinite(value):
        return LOST
    share = min(1.0, abs(value) / most) ** 0.8  # small ones can still be seen
    end = _NEGATIVE if value < 0 else _POSITIVE
    mixed = [round(z + (e - z) * share) for z, e in zip(_ZERO, end, strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def ink(value: float, most: float) -> str:
    """A colour that reads on the cell."""
    return LIGHT if math.isfinite(value) and abs(value) > 0.55 * most else DARK


def cells(values: torch.Tensor, x: float, y: float, width: float, height: float, most: float) -> list[str]:
    """The cells of a matrix, each `width` x `height`, with bars on the negative ones and crosses on what is no number;
    numbers where they fit."""
    coloured: list[str] = []
    parts, marks = [], {LIGHT: "", DARK: ""}
    rows = values.tolist()
    texts, size = _written(rows, width, height)
    bar = min(width, height) * 0.22
    for r, row in enumerate(rows):
        for c, value in enumerate(row):
            left, top = x + c * width, y + r * height
            coloured.append(svg.rect(left, top, width, height, f"fill:{colour(value, most)}"))
            middle, centre, shade = left + width / 2, top + height / 2, ink(value, most)
            if texts:
                parts.append(svg.text(middle, centre + 3.7, texts[r][c], "middle", size, f"fill:{shade}"))
            elif not math.isfinite(value):
                marks[DARK] += f"M{svg.points(middle - bar, centre - bar)}l{svg.points(2 * bar, 2 * bar)}"
                marks[DARK] += f"m0 {svg.points(-2 * bar)}l{svg.points(-2 * bar, 2 * bar)}"
            elif value < 0:
                marks[shade] += f"M{svg.points(middle - bar, centre)}h{svg.points(2 * bar)}"
    thin = max(0.8, min(width, height) * 0.09)
    parts += [svg.path(d, f"stroke:{shade};stroke-width:{thin:.2f};fill:none") for shade, d in marks.items() if d]
    frame = f"fill:none;stroke:{svg.QUIET};stroke-width:1"
    parts.append(svg.rect(x, y, width * (values.shape[1] or 1), height * (values.shape[0] or 1), frame))
    return [svg.group(coloured, "shape-rendering:crispEdges"), *parts]


def _written(rows: list[list[float]], width: float, height: float) -> tuple[list[list[str]], float]:
    """The numbers as text with the size of the font, as they fit into the cells; none where they do not."""
    for digits, size in ((3, 10.5), (2, 10.5), (2, 9.0)):
        texts = [[table.number(v, digits) for v in row] for row in rows]
        longest = max((len(t) for row in texts for t in row), default=0)
        if height >= 15 and svg.width_of("0" * longest, size) + 4 <= width:
            return texts, size
    return [], 0.0


def scale(x: float, y: float, width: float, most: float, steps: int = 21) -> str:
    """A bar of the colours from -most to most, with its numbers."""
    each = width / steps
    numbers = [most * (2 * k / (steps - 1) - 1) for k in range(steps)]
    coloured = [svg.rect(x + k * each, y, each, 9, f"fill:{colour(v, most)}") for k, v in enumerate(numbers)]
    parts = [svg.group(coloured, "shape-rendering:crispEdges")]
    for k, v in enumerate(numbers):
        if v < 0 and k % 2 == 0:
            mark = f"stroke:{ink(v, most)};stroke-width:1"
            parts.append(svg.path(f"M{svg.points(x + (k + 0.25) * each, y + 4.5)}h{svg.points(each / 2)}", mark))
    parts.append(svg.rect(x, y, width, 9, f"fill:none;stroke:{svg.QUIET}"))
    said = [(x, "start", -most), (x + width / 2, "middle", 0.0), (x + width, "end", most)]
    parts += [svg.text(at, y + 21, table.number(v, 3), anchor, 10.5) for at, anchor, v in said]
    return svg.group(parts)
