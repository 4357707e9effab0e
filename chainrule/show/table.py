"""Small tables of text: aligned for a terminal, as HTML for a notebook; long ones with their middle left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as escape

MORE = "…"
# Inherited text and translucent lines read on light and dark pages.
_HEAD = "text-align:left;padding:1px 10px"
_CELL = f"{_HEAD};white-space:pre;vertical-align:top;font-family:monospace"


def elided(count: int, most: int, also: Iterable[int] = ()) -> list[int | None]:
    """The first and last of `count` positions, at most `most` of them, and those `also` asked for; None is a gap.

    >>> elided(3, 5), elided(9, 4), elided(9, 2, also=[4])
    ([0, 1, 2], [0, 1, None, 7, 8], [0, None, 4, None, 8])
    """
    if count <= most:
        return list(range(count))
    head = (most + 1) // 2
    kept = sorted({*range(head), *range(count - (most - head), count), *also})
    found: list[int | None] = []
    for position in kept:
        if found and found[-1] is not None and position == found[-1] + 2:
            found.append(position - 1)  # a gap of one takes no less room than what it hides
        elif found and position != (found[-1] or 0) + 1:
            found.append(None)
        found.append(position)
    return found


def text(rows: Sequence[Sequence[str]], right: bool = False, indent: str = "") -> str:
    """Rows of cells in columns, the first to the left, the others to the left or to the `right`.

    >>> print(text([["a", "b"], ["loss", "1"]], right=True))
    a     b
    loss  1
    """
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.split("\n") for cell in row]
        for k in range(max(map(len, cells), default=0)):
            parts = [cell[k] if k < len(cell) else "" for cell in cells]
            aligned = [p.rjust(w) if right and i else p.ljust(w) for i, (p, w) in enumerate(zip(parts, widths))]
            lines.append((indent + "  ".join(aligned)).rstrip())
    return "\n".join(lines)


def html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same as an HTML table, escaped.

    >>> html(["name"], [["a<b"]]).count("a&lt;b")
    1
    """
    top = "".join(f'<th style="{_HEAD}">{escape(title)}</th>' for title in head)
    body = "".join("<tr>" + "".join(f'<td style="{_CELL}">{escape(c)}</td>' for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def entry(name: str, index: Sequence[int]) -> str:
    """How one element of a value is written.

    >>> entry("w1", (2, 0)), entry("loss", ())
    ('w1[2, 0]', 'loss')
    """
    return f"{name}[{', '.join(map(str, index))}]" if len(index) else name


def number(value: complex | float, digits: int = 4) -> str:
    """
    >>> number(0.123456), number(-0.0), number(float("nan")), number(1 + 2j)
    ('0.1235', '0', 'nan', '1+2j')
    """
    if isinstance(value, complex):
        return f"{value:.{digits}g}"
    return f"{value + 0.0:.{digits}g}"
