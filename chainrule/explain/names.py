"""The names in a line of code: where each stands, and what the formulas of an explanation call it."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from chainrule.explain.step import Step


@dataclass(frozen=True)
class Names:
    """The names that an explanation knows, each with the name that its formulas have for it: mul_g is mul.g there."""

    known: dict[str, str]

    @classmethod
    def of(cls, steps: Collection[Step]) -> Names:
        """The names of what the steps give and of what they read."""
        known: dict[str, str] = {}
        for step in steps:
            given = step.targets if step.formula is None else step.formula.parts[0].names
            known.update(zip(step.targets, given, strict=True))
        for read in (name for step in steps for name in step.reads if name not in known.values()):
            known[read] = read
            if read.endswith(".g"):  # the upstream gradient, which code writes out_g
                known[f"{read[:-2]}_g"] = read
        return cls(known)

    def pieces(self, code: str) -> Iterator[tuple[str, str]]:
        """`code` in pieces, each with the name that it is, or "".

        >>> list(Names({"w.g": "w.g", "x": "x"}).pieces("w.g = x.T"))
        [('w.g', 'w.g'), (' = ', ''), ('x', 'x'), ('.T', '')]
        """
        raw, at = code.encode(), 0
        for start, end, name in sorted(self._found(ast.parse(code))):
            if start > at:
                yield raw[at:start].decode(), ""
            yield raw[start:end].decode(), name
            at = end
        if at < len(raw):
            yield raw[at:].decode(), ""

    def _found(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted = self.known.get(f"{node.value.id}.{node.attr}")
            if dotted is not None:
                yield node.col_offset, node.end_col_offset or 0, dotted
                return
        if isinstance(node, ast.Name) and node.id in self.known:
            yield node.col_offset, node.end_col_offset or 0, self.known[node.id]
        for child in ast.iter_child_nodes(node):
            yield from self._found(child)


def person_names(names: Iterable[str]) -> dict[str, str]:
    """For each identifier that code makes of a name, the name, where they differ and no two names share it.

    >>> person_names(["x", "layers.0.weight", "a b", "a.b"])
    {'layers_0_weight': 'layers.0.weight'}
    """
    made: dict[str, list[str]] = {}
    for name in names:
        made.setdefault(re.sub(r"\W", "_", name), []).append(name)
    return {k: v[0] for k, v in made.items() if v != [k] and len(v) == 1}
