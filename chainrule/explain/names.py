"""The names in a line of code, and where each of them stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator

from chainrule.explain.step import Step


def names_of(steps: Iterable[Step]) -> set[str]:
    """The names of what the steps give and of what they read."""
    return {name for step in steps for name in (*step.targets, *step.reads)}


def pieces(code: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """`code` in pieces, each with the name that it is, or "".

    >>> list(pieces("w.g = x.T", {"w.g", "x"}))
    [('w.g', 'w.g'), (' = ', ''), ('x', 'x'), ('.T', '')]
    """
    raw, at = code.encode(), 0
    for start, end, name in sorted(_found(ast.parse(code), names)):
        if start > at:
            yield raw[at:start].decode(), ""
        yield raw[start:end].decode(), name
        at = end
    if at < len(raw):
        yield raw[at:].decode(), ""


def _found(node: ast.AST, names: Collection[str]) -> Iterator[tuple[int, int, str]]:
    name = ""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name = f"{node.value.id}.{node.attr}"
    elif isinstance(node, ast.Name):
        name = node.id
    if name in names:
        yield node.col_offset, node.end_col_offset, name  # type: ignore[attr-defined]
        return
    for child in ast.iter_child_nodes(node):
        yield from _found(child, names)


def gradient_of(name: str, names: Collection[str]) -> str | None:
    """The name of the gradient of a value, where there is one.

    >>> gradient_of("w", {"w", "w.g"}), gradient_of("mul", {"mul_g"}), gradient_of("x", {"x"})
    ('w.g', 'mul_g', None)
    """
    return next((g for g in (f"{name}.g", f"{name}_g") if g in names), None)


def person_names(names: Iterable[str]) -> dict[str, str]:
    """For each identifier that code makes of a name, the name, where they differ and no two names share it.

    >>> person_names(["x", "layers.0.weight", "a b", "a.b"])
    {'layers_0_weight': 'layers.0.weight'}
    """
    made: dict[str, list[str]] = {}
    for name in names:
        made.setdefault(re.sub(r"\W", "_", name), []).append(name)
    return {k: v[0] for k, v in made.items() if v != [k] and len(v) == 1}
