"""SVG text: the few shapes that pictures are made of, and the picture as a whole.

Colours are CSS variables, so that a page can set them; text has the page's own colour. No shape has an id, as several
pictures may stand on one page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from html import escape

from chainrule.files import write

FORWARD = "var(--chainrule-forward, #2f7bd9)"  # both read on white and on black
BACKWARD = "var(--chainrule-backward, #c8601b)"
QUIET = "var(--chainrule-quiet, #808080)"  # frames, marks of a scale
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
CHAR = 0.605  # width of a character, of the font's size
SIZE = 12
WIDEST = 900  # of a picture: a notebook's cell, a column of text; what is wider is scaled

# A file that is opened by itself, or shown as an image, has no page to take its colour from, and does not know what it
# stands on: it brings paper along.
_ALONE = (
    "svg:root{color:#1a1a1a;background:#fff}"
    "@media(prefers-color-scheme:dark){svg:root{color:#e6e6e6;background:#161616}}"
)
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Picture:
    """An SVG picture: `.svg` is its text, `.save(path)` writes it, a notebook shows it."""

    def __init__(self, width: float, height: float, title: str, description: str, parts: Iterable[str]) -> None:
        self.title, self.description = title, description
        scale = min(1.0, WIDEST / width)
        self.width, self.height = width * scale, height * scale
        self.svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(self.width)}" height="{_n(self.height)}" '
            f'viewBox="0 0 {_n(width)} {_n(height)}" role="img" font-family="{FONT}" font-size="{SIZE}" '
            f'style="max-width:100%;height:auto" fill="currentColor">\n'
            f"<title>{safe(title)}</title>\n<desc>{safe(description)}</desc>\n<style>{_ALONE}</style>\n"
            + "\n".join(parts)
            + "\n</svg>\n"
        )

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Picture: {self.title}; .svg is its text, .save(path) writes it>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the SVG to a file whose name ends in .svg; raises ChainruleError where that is not possible."""
        write(self.svg, path, "an SVG picture", ".svg")


def safe(text: str) -> str:
    """`text` as it may stand in XML.

    >>> safe('a<b & "c"')
    'a&lt;b &amp; &quot;c&quot;'
    """
    return escape(_NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


def text(x: float, y: float, words: str, anchor: str = "start", size: float = SIZE, style: str = "") -> str:
    """Words whose baseline is at `y`; `anchor` is start, middle or end."""
    extra = "" if anchor == "start" else f' text-anchor="{anchor}"'
    extra += "" if size == SIZE else f' font-size="{_n(size)}"'
    extra += f' style="{style}"' if style else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" xml:space="preserve"{extra}>{safe(words)}</text>'


def rect(x: float, y: float, width: float, height: float, style: str = "", radius: float = 0) -> str:
    corner = f' rx="{_n(radius)}"' if radius else ""
    look = f' style="{style}"' if style else ""
    return f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"{corner}{look}/>'


def path(steps: str, style: str) -> str:
    return f'<path d="{steps}" style="{style}"/>'


def group(parts: Iterable[str], style: str = "", title: str = "") -> str:
    """Shapes with one style; `title` is said when the mouse is over them."""
    look = f' style="{style}"' if style else ""
    said = f"<title>{safe(title)}</title>" if title else ""
    return f"<g{look}>{said}" + "".join(parts) + "</g>"


def points(*numbers: float) -> str:
    """Numbers as they stand in a path.

    >>> points(1, 2.5, 3.14159)
    '1 2.5 3.14'
    """
    return " ".join(map(_n, numbers))


def width_of(words: str, size: float = SIZE) -> float:
    """How wide a line of text is."""
    return len(words) * CHAR * size


def cut(words: str, most: int) -> str:
    """At most `most` characters.

    >>> cut("abcdef", 4), cut("abcd", 4)
    ('abc…', 'abcd')
    """
    return words if len(words) <= most else words[: max(1, most - 1)].rstrip() + "…"


def filled(words: Sequence[str], most: int) -> list[str]:
    """`words` one after another, in lines of at most `most` characters where that is possible."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".") if number % 1 else str(int(number))
