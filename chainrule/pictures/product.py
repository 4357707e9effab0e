"""The picture of a product of matrices: the row and the column that meet in one element, and the sum that it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from chainrule.pictures import svg
from chainrule.pictures.factors import Product, product_of
from chainrule.pictures.svg import BACKWARD, FORWARD, Picture
from chainrule.show import table

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

MOST = 8  # rows and columns drawn of each matrix
CELL, HIGH, NARROW = 52.0, 24.0, 20.0
MARGIN, SPACE = 14.0, 46.0


def of_element(d: Derivation, name: str, at: Any) -> Picture:
    """The left factor below, the right one above, and where row and column meet, the element; see `Derivation.picture`."""
    p = product_of(d, name, at)
    inner = p.left.shape[1]
    rows, columns = table.elided(p.left.shape[0], MOST, [p.row]), table.elided(p.right.shape[1], MOST, [p.column])
    along = table.elided(inner, MOST)
    wide = [_wide(along), _wide(columns)]
    tall = [_tall(along), _tall(rows)]
    x0 = MARGIN + SPACE
    titles = [f"{name} {shape}" for name, shape in zip(p.names, p.shapes, strict=True)]
    x1, y0 = x0 + max(wide[0] + SPACE + 12, svg.width_of(titles[0]) + 16), MARGIN + 56
    y1 = y0 + tall[0] + SPACE
    parts = [svg.text(MARGIN, MARGIN + 12, p.code, style="font-weight:bold")]
    parts += _matrix(p.left, rows, along, x0, y1, titles[0], row=p.row)
    parts += _matrix(p.right, along, columns, x1, y0, titles[1], column=p.column)
    parts += _matrix(p.out, rows, columns, x1, y1, titles[2], row=p.row, column=p.column)
    bottom = y1 + tall[1] + 34
    words = _sum(p)
    right = x1 + max(wide[1] + 10, svg.width_of(titles[1]), svg.width_of(titles[2]))
    width = max(right + MARGIN, 560.0, svg.width_of(p.code) + 2 * MARGIN)
    lines = [part for line in words for part in svg.filled(line.split(" "), int((width - 2 * MARGIN) / 7.3))]
    parts += [svg.text(MARGIN, bottom + 17 * k, line) for k, line in enumerate(lines)]
    described = f"{p.code}. Row {p.row} of {p.names[0]} and column {p.column} of {p.names[1]} meet. {' '.join(words)}"
    return Picture(width, bottom + 17 * len(lines), f"{p.element} as a product of a row and a column", described, parts)


def _sum(p: Product) -> list[str]:
    """The element as a sum of products, in letters and in numbers."""
    row, column = p.left[p.row].tolist(), p.right[:, p.column].tolist()
    total = float(p.out[p.row, p.column])
    terms = [f"{_factor(a, first=k == 0)}·{_factor(b)}" for k, (a, b) in enumerate(zip(row, column, strict=True))]
    shown = [table.MORE if k is None else terms[k] for k in table.elided(len(terms), 6)]
    name = p.element if p.whole else table.entry(f"({p.names[2]})", (p.row, p.column))
    lines = [f"{name} = sum over k of {p.names[0]}[{p.row}, k] · {p.names[1]}[k, {p.column}], {len(terms)} terms"]
    if p.slice:
        lines[0] += f", {p.slice}"
    lines.append(f"= {' + '.join(shown) or '0'} = {table.number(total, 5)}")
    if not p.whole:
        lines.append(f"with the rest of the line, {p.element} = {table.number(p.value, 5)}")
    return lines


def _factor(number: float, first: bool = False) -> str:
    """A number in a sum of products; a sign stands bare only where the line begins.

    >>> _factor(-0.5), _factor(-0.5, first=True)
    ('(-0.5)', '-0.5')
    """
    text = table.number(number, 3)
    return f"({text})" if text.startswith("-") and not first else text


def _wide(positions: list[int | None]) -> float:
    return sum(NARROW if p is None else CELL for p in positions)


def _tall(positions: list[int | None]) -> float:
    return sum(NARROW if p is None else HIGH for p in positions)


def _matrix(
    value: torch.Tensor,
    rows: list[int | None],
    columns: list[int | None],
    x: float,
    y: float,
    title: str,
    row: int | None = None,
    column: int | None = None,
) -> list[str]:
    """The cells of a matrix with the numbers of its rows and columns; a row, a column, or where the two meet marked."""
    width, height = _wide(columns), _tall(rows)
    parts, top = _marked(rows, columns, x, y, row, column), y
    for r in rows:
        left, high = x, NARROW if r is None else HIGH
        for c in columns:
            wide = NARROW if c is None else CELL
            if r is not None and c is not None:
                bold = "font-weight:bold" if row in (None, r) and column in (None, c) else ""
                parts.append(svg.rect(left, top, wide, high, f"fill:none;stroke:{svg.QUIET};stroke-opacity:.45"))
                parts.append(svg.text(left + wide / 2, top + 16, _fitting(float(value[r, c])), "middle", 10.5, bold))
            else:
                dots = "⋱" if r is None and c is None else "⋮" if r is None else table.MORE
                parts.append(svg.text(left + wide / 2, top + high / 2 + 4, dots, "middle"))
            left += wide
        top += high
    parts.append(svg.rect(x, y, width, height, f"fill:none;stroke:{svg.QUIET};stroke-width:1.2"))
    parts.append(svg.text(x, y - 20, title, style="font-weight:bold"))
    return [svg.group([*parts, *_numbers(rows, columns, x, y)], title=title)]


def _marked(
    rows: list[int | None], columns: list[int | None], x: float, y: float, row: int | None, column: int | None
) -> list[str]:
    """A tint and a line: solid round a row, dashed round a column, as they tell apart in black and white."""
    top, high = (y, _tall(rows)) if row is None else (y + _tall(rows[: rows.index(row)]), HIGH)
    left, wide = (x, _wide(columns)) if column is None else (x + _wide(columns[: columns.index(column)]), CELL)
    if row is not None and column is not None:
        tone, dashes = "currentColor", ""
    else:
        tone, dashes = (FORWARD, "") if column is None else (BACKWARD, ";stroke-dasharray:5 3")
    return [
        svg.rect(left, top, wide, high, f"fill:{tone};fill-opacity:.2"),
        svg.rect(left, top, wide, high, f"fill:none;stroke:{tone};stroke-width:3{dashes}"),
    ]


def _numbers(rows: list[int | None], columns: list[int | None], x: float, y: float) -> list[str]:
    """The positions of rows and columns along the sides."""
    parts, top, left = [], y, x
    quiet = "opacity:.65"
    for r in rows:
        if r is not None:
            parts.append(svg.text(x - 5, top + 16, f"{r:,}", "end", 9.5, quiet))
        top += NARROW if r is None else HIGH
    for c in columns:
        if c is not None:
            parts.append(svg.text(left + CELL / 2, y - 5, f"{c:,}", "middle", 9.5, quiet))
        left += NARROW if c is None else CELL
    return parts


def _fitting(value: float) -> str:
    """A number with as many digits as fit a cell."""
    texts = [table.number(value, digits) for digits in (3, 2, 1)]
    return next((t for t in texts if len(t) <= 7), texts[-1])
