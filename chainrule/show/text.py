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


def broken(line: str) -> list[str]:
    """A line of code in lines of at most 88 characters, broken inside its longest brackets, or before its sums.

    >>> broken(f"x = f({'a' * 40}, {'b' * 30}).sum(axis=0)")
    ['x = f(', '    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', ').sum(axis=0)']
    """
    if len(line) <= 88:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    pairs = _outermost(line)
    start, end = max(pairs, key=lambda pair: pair[1] - pair[0], default=(0, 0))
    target, _, code = line.partition(" = ")
    call = end == len(line) - 1 and " " not in line[len(target) + 3 : start]
    if code and 2 * (end - start) < len(line.strip()) and not call:
        terms = [piece for term in _terms(code) for piece in broken(f"{indent}    {term}")]
        return [f"{target} = (", *terms, f"{indent})"]
    if not pairs:
        return [line]
    inner = [f"{indent}    {line[start + 1 : end].strip()}"]
    if len(inner[0]) > 88:
        inner = [piece for item in _items(line[start + 1 : end]) for piece in broken(f"{indent}    {item},")]
    return [line[: start + 1], *inner, *broken(f"{indent}{line[end:]}")]


def _terms(code: str) -> list[str]:
    """The terms of a sum, each but the first with its sign, as many on a line as fit."""
    pairs = _outermost(code)
    cuts = [m.start() + 1 for m in re.finditer(r" [+-] ", code) if not any(a < m.start() < b for a, b in pairs)]
    lines = [""]
    for term in (code[a:b].strip() for a, b in zip([0, *cuts], [*cuts, len(code)], strict=True)):
        lines[-1:] = [f"{lines[-1]} {term}".strip()] if len(lines[-1]) + len(term) < 70 else [lines[-1], term]
    return [line for line in lines if line]


def _outermost(text: str) -> list[tuple[int, int]]:
    """Where brackets that stand in no others open and close; none in text that does not close them."""
    depth, start, found = 0, 0, []
    for position, character in enumerate(text):
        if character in "([{":
            start = position if depth == 0 else start
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0 and position > start + 1:
                found.append((start, position))
    return found if depth == 0 else []


def _items(text: str) -> list[str]:
    """What commas outside all brackets separate.

    >>> _items("a, f(b, c)")
    ['a', 'f(b, c)']
    """
    pairs = _outermost(text)
    cuts = [i for i, c in enumerate(text) if c == "," and not any(a < i < b for a, b in pairs)]
    return [text[a + 1 : b].strip() for a, b in zip([-1, *cuts], [*cuts, len(text)], strict=True)]
