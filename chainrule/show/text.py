"""Pieces of emitted text: signatures, docstrings, lists that are too long for one line."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from torch import fx

if TYPE_CHECKING:
    from chainrule.show.layout import Layout


def signature(layout: Layout, inputs: list[fx.Node]) -> str:
    return ", ".join(f"{layout.variables.get(n) or n.meta.get('name')} {tuple(n.meta['val'].shape)}" for n in inputs)


def docstring(text: str, indent: str) -> list[str]:
    if len(text) + len(indent) + 6 <= 88:
        return [f'{indent}"""{text}"""']
    return [f'{indent}"""', *filled_lines(text, indent), f'{indent}"""']


def filled_lines(text: str, indent: str) -> list[str]:
    """Lines of at most 88 characters, broken between entries and never inside a shape."""
    joined = re.sub(r"(?<=[\w,]) (?=[(\d])", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(joined, 88, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def comment(text: str) -> list[str]:
    return filled_lines(text, "# ")


def wrapped(head: str, items: list[str], tail: str) -> str:
    line = f"{head}{', '.join(items)}{tail}"
    if len(line) <= 88:
        return line
    indent = " " * (len(head) - len(head.lstrip()))
    return "\n".join([head, *(f"{indent}    {item}," for item in items), f"{indent}{tail}"])


def filled(head: str, items: list[str], tail: str) -> list[str]:
    """`head`, the items and `tail`, as many items on a line as fit.

    >>> filled("(", ["a", "b"], ")")
    ['(a, b)']
    """
    line = f"{head}{', '.join(items)}{tail}"
    if len(line) <= 88:
        return [line]
    indent = " " * (len(head) - len(head.lstrip()) + 4)
    rows = textwrap.wrap(", ".join(items) + ",", 88, initial_indent=indent, subsequent_indent=indent)
    return [head, *rows, f"{indent[4:]}{tail.removeprefix(',')}"]
