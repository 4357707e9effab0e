"""Boxes in layers from top to bottom: igraph orders each layer so that few lines cross, the rest is arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from chainrule.errors import ChainruleError

GAP = 22.0  # between boxes of a layer
BETWEEN = 46.0  # between layers, for the lines
LANE = 24.0  # for a line that passes a layer


@dataclass(eq=False)
class Box:
    """What is placed: a rectangle, or a lane that a line takes through a layer."""

    width: float
    height: float
    layer: int = 0
    x: float = 0.0  # of the middle
    y: float = 0.0  # of the top
    above: list[Box] = field(default_factory=list)
    below: list[Box] = field(default_factory=list)
    is_lane: bool = False


@dataclass(eq=False)
class Edge:
    """A line from one box down to another, through `lanes` that lines from the same box share."""

    start: Box
    end: Box
    lanes: list[Box] = field(default_factory=list)
    at_start: float = 0.0  # where it leaves and where it arrives, from the middle of the box
    at_end: float = 0.0


def place(boxes: list[Box], edges: list[Edge], widest: float, inward: float = 0.02) -> tuple[float, float]:
    """Give every box its place, with `boxes` in an order that the edges follow; the width and height of the whole.

    Boxes that nothing leads to stand just above what they lead to, higher where a layer would get wider than `widest`.
    `inward` says how strongly everything is drawn to the middle, against lines that are straight.
    Raises ChainruleError without igraph.
    """
    if not boxes:
        return 0.0, 0.0
    _assign_layers(boxes, edges, widest)
    leaving: dict[Box, list[Edge]] = {}
    for edge in edges:
        leaving.setdefault(edge.start, []).append(edge)
    lanes = [lane for together in leaving.values() for lane in _lanes(together)]
    everything = [*boxes, *lanes]
    rows = _ordered(everything)
    _spread(rows, inward)
    left = min(box.x - box.width / 2 for box in everything)
    for box in everything:
        box.x -= left
    top = 0.0
    for row in rows:
        height = max(box.height for box in row)
        for box in row:
            # lanes pass the whole layer; inputs stand as near to their readers as they can
            box.y = top if box.above else top + height - box.height
            box.height = height if box.is_lane else box.height
        top += height + BETWEEN
    return max(box.x + box.width / 2 for box in everything), top - BETWEEN


def _assign_layers(boxes: list[Box], edges: list[Edge], widest: float) -> None:
    incoming: dict[Box, list[Box]] = {box: [] for box in boxes}
    outgoing: dict[Box, list[Box]] = {box: [] for box in boxes}
    for edge in edges:
        incoming[edge.end].append(edge.start)
        outgoing[edge.start].append(edge.end)
    for box in boxes:
        box.above, box.below = [], []
        box.layer = max((b.layer + 1 for b in incoming[box]), default=0)
    room: dict[int, float] = {}
    for box in boxes:
        if incoming[box]:
            room[box.layer] = room.get(box.layer, 0.0) + box.width + GAP
    for box in reversed(boxes):
        if not incoming[box]:
            layer = min((b.layer for b in outgoing[box]), default=0) - 1
            while layer in room and room[layer] + box.width > widest:
                layer -= 1
            box.layer = layer
            room[layer] = room.get(layer, 0.0) + box.width + GAP
    used = {layer: position for position, layer in enumerate(sorted({box.layer for box in boxes}))}
    for box in boxes:
        box.layer = used[box.layer]


def _lanes(edges: list[Edge]) -> list[Box]:
    """A lane for each layer that edges of one box pass, which they share; tied to what stands before and after."""
    last, start = max(edge.end.layer for edge in edges), edges[0].start
    lanes = [Box(LANE, 0.0, layer, is_lane=True) for layer in range(start.layer + 1, last)]
    ties = list(pairwise([start, *lanes]))
    for edge in edges:
        edge.lanes = lanes[: edge.end.layer - start.layer - 1]
        ties.append(((edge.lanes or [start])[-1], edge.end))
    for upper, lower in ties:
        upper.below.append(lower)
        lower.above.append(upper)
    return lanes


def _ordered(boxes: list[Box]) -> list[list[Box]]:
    """The boxes of each layer from left to right, as igraph has them."""
    try:
        import igraph
    except ModuleNotFoundError as error:
        raise ChainruleError('a picture of the graph needs igraph; run pip install "chainrule[pictures]"') from error
    at = {box: k for k, box in enumerate(boxes)}
    graph = igraph.Graph(len(boxes), [(at[box], at[lower]) for box in boxes for lower in box.below], directed=True)
    layout = graph.layout_sugiyama(layers=[box.layer for box in boxes], hgap=1, maxiter=200)
    rows: list[list[Box]] = [[] for _ in range(max(box.layer for box in boxes) + 1)]
    for box, (x, _) in zip(boxes, list(layout)[: len(boxes)], strict=True):
        box.x = x
        rows[box.layer].append(box)
    for row in rows:
        row.sort(key=lambda box: box.x)
    return rows


def _spread(rows: list[list[Box]], inward: float, sweeps: int = 40) -> None:
    """Move boxes towards what they are tied to, without changing the order of a layer."""
    for row in rows:
        _settle(row, [0.0 for _ in row])
    for sweep in range(sweeps):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            goals = []
            for box in row:
                tied = [(b, _pull(box, b)) for b in [*box.above, *box.below]]
                total = sum(weight for _, weight in tied) + inward
                goals.append(sum(b.x * weight for b, weight in tied) / total)
            _settle(row, goals)


def _pull(box: Box, other: Box) -> float:
    """How strongly a box is drawn to another: lines shall be straight, then the way of what is computed; inputs follow."""
    if box.is_lane and other.is_lane:
        return 4.0
    return 1.0 if other.above or not box.above else 0.15


def _settle(row: list[Box], goals: list[float]) -> None:
    """The places nearest to the goals, in least squares, at which no boxes overlap (pool adjacent violators)."""
    offsets, at = [], 0.0
    for before, box in zip([None, *row], row, strict=False):
        at += (before.width + box.width) / 2 + GAP if before is not None else 0.0
        offsets.append(at)
    pools: list[tuple[float, float, int]] = []  # mean, weight, count
    for box, goal, offset in zip(row, goals, offsets, strict=True):
        mean, weight, count = goal - offset, 1.0 if box.above else 0.1, 1  # inputs make way
        while pools and pools[-1][0] > mean:
            earlier, heavy, more = pools.pop()
            mean, weight, count = (mean * weight + earlier * heavy) / (weight + heavy), weight + heavy, count + more
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    for box, mean, offset in zip(row, means, offsets, strict=True):
        box.x = mean + offset
