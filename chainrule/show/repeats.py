"""Finds repeated layers: stretches of lines that do the same, each on what the one before it gave.

A line is compared by its template (its text with every name left out) and by what stands in the gaps:
values of the same layer, values that the layer before it gave, values that all layers share, and values
of its own such as its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx

from chainrule.show.layout import Layout, Line
from chainrule.show.python import Python


@dataclass
class Run:
    """`count` stretches of `period` lines each, one after the other, that do the same."""

    start: int
    period: int
    count: int
    carried: dict[int, list[Any]] = field(default_factory=dict)  # position -> the node of each stretch
    own: list[list[fx.Node]] = field(default_factory=list)  # for each gap of a stretch's own: its node in each stretch
    shared: list[fx.Node] = field(default_factory=list)

    def stretch(self, t: int) -> range:
        first = self.start + t * self.period
        return range(first, first + self.period)


class Lines:
    """The lines of one phase, each as a template with gaps."""

    def __init__(self, layout: Layout, lines: list[Line]) -> None:
        self.layout, self.lines = layout, lines
        self.gaps: list[list[fx.Node]] = []
        templates = []
        for line in lines:
            template, gaps = self._template(line)
            templates.append(template)
            self.gaps.append(gaps)
        known: dict[Any, int] = {}
        self.keys = np.array([known.setdefault(t, len(known)) for t in templates], dtype=np.int64)
        self.at: dict[fx.Node, int] = {}
        for index, line in enumerate(lines):
            if not line.alias:
                self.at[line.node] = index

    def _template(self, line: Line) -> tuple[Any, list[fx.Node]]:
        gaps: list[fx.Node] = []

        def gap(node: fx.Node) -> str | None:
            if node not in self.layout.shown:
                return None
            gaps.append(node)
            return "_"

        python = Python(gap)
        if line.phase == "unpacked":
            gaps.append(line.node.args[0])  # type: ignore[arg-type]
            return ("part", line.node.args[1]), gaps
        text = python.text(line.node) if line.alias else python.expression(line.node)[0]
        asked = line.of is not None and line.of.op == "placeholder" and line.of in self.layout.program.wanted
        if asked:
            gaps.append(line.of)  # type: ignore[arg-type]
        value = line.node.meta["val"]
        return (text, line.alias, asked, str(getattr(value, "shape", "")), str(getattr(value, "dtype", ""))), gaps

    def take(self, run: Run) -> None:
        """Leave the lines of `run` out of further repeats."""
        for at in range(run.start, run.start + run.period * run.count):
            self.keys[at] = -1 - at

    def runs(self) -> Iterator[Run]:
        """Repeats, those that save most lines first."""
        n, found = len(self.keys), []
        for period in range(1, n // 2 + 1):
            same = np.concatenate([[False], self.keys[period:] == self.keys[:-period], [False]])
            edges = np.flatnonzero(same[1:] != same[:-1])
            for start, stop in zip(edges[::2], edges[1::2], strict=True):
                if stop - start >= period:
                    found.append((int(start), period, int(stop - start)))
        found.sort(key=lambda f: (-(f[2] // f[1]) * f[1], f[1], f[0]))
        for start, period, length in found[:24]:
            yield from self._rotations(start, period, length)

    def _rotations(self, start: int, period: int, length: int) -> Iterator[Run]:
        best: list[tuple[int, int, int, Run]] = []
        for shift in range(min(period, length % period + period)):
            count = (length - shift) // period + 1
            run = self.run(start + shift, period, count) if count > 1 else None
            if run is not None:
                best.append((-count, len(run.carried), shift, run))
        yield from (b[-1] for b in sorted(best, key=lambda b: b[:3]))

    def run(self, start: int, period: int, count: int) -> Run | None:
        """The repeat at this place, if what stands in the gaps repeats as well."""
        run = Run(start, period, count)
        own: dict[tuple[int, ...], list[fx.Node]] = {}
        for position in range(period):
            lists = [self.gaps[start + t * period + position] for t in range(count)]
            if len({len(g) for g in lists}) != 1:
                return None
            for nodes in zip(*lists, strict=True):
                if not self._fits(run, list(nodes), own):
                    return None
        run.own = list(own.values())
        return run

    def _fits(self, run: Run, nodes: list[fx.Node], own: dict[tuple[int, ...], list[fx.Node]]) -> bool:
        if all(n is nodes[0] for n in nodes):
            inside = run.start <= self.at.get(nodes[0], -1) < run.start + run.period * run.count
            if nodes[0] not in run.shared and not inside:
                run.shared.append(nodes[0])
            return not inside
        offsets = [self._offset(run, n, t) for t, n in enumerate(nodes)]
        if all(o is not None and 0 <= o < run.period for o in offsets):
            return len(set(offsets)) == 1
        later = set(offsets[1:])
        if len(later) == 1 and (back := later.pop()) is not None and -run.period <= back < 0:
            before = run.carried.setdefault(back + run.period, nodes)
            return (before[0] is nodes[0] and offsets[0] is None) or (before[0] is nodes[0] and offsets[0] == back)
        if any(o is not None for o in offsets):
            return False
        own.setdefault(tuple(id(n) for n in nodes), nodes)
        return True

    def _offset(self, run: Run, node: fx.Node, t: int) -> int | None:
        """Where the line of `node` stands, from the first line of stretch `t`; None outside of the repeat."""
        at = self.at.get(node)
        if at is None or not run.start <= at < run.start + run.period * run.count:
            return None
        return at - run.start - t * run.period
