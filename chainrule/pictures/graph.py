"""The picture of a computation: values in boxes, operations above them, the backward pass along dashed lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chainrule.pictures import svg
from chainrule.pictures.layers import GAP, Box, Edge, place
from chainrule.pictures.svg import BACKWARD, FORWARD, Picture
from chainrule.pictures.values import Graph, Value

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

WIDEST = 860.0
LONGEST, SHORTEST = 60, 18  # characters of code in a box: fewer where a layer gets too wide
LINE, PILL, LINK, PAD = 16.0, 20.0, 20.0, 8.0
APART = 4.0  # of the two passes, from the middle of a line
ENDS = 22.0  # between lines that end at one box
MARGIN = 12.0
LEGEND = 26.0
_SOLID = f"stroke:{FORWARD};stroke-width:1.5;fill:none"
_DASHED = f"stroke:{BACKWARD};stroke-width:1.5;stroke-dasharray:5 3;fill:none"


@dataclass(eq=False)
class _Drawn(Box):
    value: Value = field(default_factory=lambda: Value("", "", ""))
    code: str = ""
    gradients: list[str] = field(default_factory=list)

    @property
    def frame(self) -> float:
        """The top of the box itself, below the operation."""
        return self.y + (PILL + LINK if self.code else 0.0)


def of_derivation(d: Derivation) -> Picture:
    """The graph of a derivation, at most 900 wide."""
    graph = Graph(d)
    boxes, edges, width, height = _placed(graph)
    _spread_ends(edges)
    output = d.layout.variables[d.program.output]
    notes = svg.filled(" ".join([f"{n};" for n in graph.notes]).rstrip(";").split(), int(max(width, 400) / 7.3))
    parts = [_lines([edge for edge in edges if edge.start is box]) for box in boxes.values() if box.below]
    parts += [_shape_label(box, edges) for box in boxes.values() if box.below and box.value.shape]
    parts += [_value(box) for box in boxes.values()]
    parts.append(_legend(0, height + LEGEND))
    parts += [svg.text(0, height + LEGEND + 20 + LINE * k, line) for k, line in enumerate(notes)]
    total = height + LEGEND + (LINE * len(notes) + 8 if notes else 0.0) + MARGIN
    whole = svg.group(parts, f"transform:translate({MARGIN}px,{MARGIN}px)")
    title = f"The computation of {output} and its backward pass"
    return Picture(max(width, 400) + 2 * MARGIN, total + MARGIN, title, described(graph), [whole])


def _placed(graph: Graph) -> tuple[dict[Value, _Drawn], list[Edge], float, float]:
    """Boxes and edges with their places; code is cut where a layer is too wide otherwise."""
    read = {source for value in graph.values for source in value.reads}
    lengths, inward = dict.fromkeys(graph.values, LONGEST), 0.02
    while True:
        boxes = {value: _box(value, lengths[value], value not in read) for value in graph.values}
        edges = [Edge(boxes[source], boxes[value]) for value in graph.values for source in value.reads]
        width, height = place(list(boxes.values()), edges, WIDEST, inward)
        if width <= WIDEST or max(lengths.values()) <= SHORTEST:
            return boxes, edges, width, height
        room = Counter[int]()
        for box in [*boxes.values(), *{lane for edge in edges for lane in edge.lanes}]:
            room[box.layer] += int(box.width + GAP)
        wide = [b for b in boxes.values() if room[b.layer] > WIDEST and lengths[b.value] > SHORTEST]
        if not wide and inward < 1:
            inward *= 3
            continue
        longest = max(map(_longest, wide or boxes.values()))
        for box in wide or boxes.values():  # those with the longest lines first
            lengths[box.value] = min(lengths[box.value], max(SHORTEST, int(longest * 0.85)))


def _longest(box: _Drawn) -> int:
    return max(map(len, (box.code, *box.gradients)))


def described(graph: Graph) -> str:
    """The picture in words."""
    ahead = [f"{v.name} {v.shape} = {v.code}" if v.code else f"{v.name} {v.shape}" for v in graph.values]
    back = [line for v in reversed(graph.values) for line in v.gradients]
    said = (
        f"Forward pass, top to bottom: {'; '.join(ahead)}. Backward pass, bottom to top: {'; '.join(back) or 'none'}."
    )
    return " ".join([said, *(f"{note}." for note in graph.notes)])


def _box(value: Value, length: int, last: bool) -> _Drawn:
    code = svg.cut(value.code, length)
    gradients = [line if len(line) <= length else _shortened(line, value.name, length) for line in value.gradients]
    if len(gradients) > 4:
        gradients = [*gradients[:2], f"… {len(gradients) - 3} more lines", gradients[-1]]
    widths = [svg.width_of(text) for text in (f"{_title(value)} {value.shape}" * last or _title(value), *gradients)]
    width = max(44.0, *(w + 2 * PAD for w in widths), svg.width_of(code) + 2 * PILL * 0.6 if code else 0.0)
    height = (PILL + LINK if code else 0.0) + 24.0 + (LINE * len(gradients) + 6.0 if gradients else 0.0)
    return _Drawn(width, height, value=value, code=code, gradients=gradients)


def _shortened(line: str, name: str, length: int) -> str:
    """A line that is too long; the name of the value stands above it already."""
    return svg.cut(line.removeprefix(name) if line.startswith(f"{name}.g = ") else line, length)


def _title(value: Value) -> str:
    return f"{value.name} ×{value.times}" if value.times > 1 else value.name


def _value(box: _Drawn) -> str:
    """The operation, the box with the name, and below it the lines of its gradient."""
    value, left, parts = box.value, box.x - box.width / 2, list[str]()
    top, height = box.frame, box.y + box.height - box.frame
    if box.code:
        wide = svg.width_of(box.code) + PILL * 1.2
        parts.append(svg.path(f"M{svg.points(box.x, box.y + PILL)}V{svg.points(top - 5)}", _SOLID))
        parts.append(_arrow(box.x, top, down=True))
        pill = f"stroke:{FORWARD};fill:{FORWARD};fill-opacity:.1"
        parts.append(svg.rect(box.x - wide / 2, box.y, wide, PILL, pill, PILL / 2))
        parts.append(svg.text(box.x, box.y + 14, box.code, "middle"))
    last = not box.below and bool(value.code)
    heavy = "stroke-width:2.5" if value.is_output else "stroke-width:1.5"
    parts.append(svg.rect(left, top, box.width, height, f"stroke:{FORWARD};fill:none;{heavy}", 3 if value.code else 11))
    name = f"{_title(value)} {value.shape}" if last else _title(value)
    parts.append(svg.text(box.x, top + 16, name, "middle", style="font-weight:bold"))
    if box.gradients:
        parts.append(svg.path(f"M{svg.points(left, top + 24)}H{svg.points(left + box.width)}", _DASHED))
        for k, line in enumerate(box.gradients):
            parts.append(svg.text(box.x, top + 24 + 15 + LINE * k, line, "middle"))
    said = [
        f"{value.name} = {value.code}" if value.code else f"{value.name} is an input",
        value.shape,
        *value.gradients,
    ]
    return svg.group(parts, title="\n".join(line for line in said if line))


def _shape_label(box: _Drawn, edges: list[Edge]) -> str:
    """The shape of a value on the lines that leave it, on the side that they do not turn to."""
    turns = [((e.lanes or [e.end])[0].x + e.at_end) - (box.x + e.at_start) for e in edges if e.start is box]
    ends = [e.at_start for e in edges if e.start is box]
    right = sum(turns) < 0
    x = box.x + (max(ends) if right else min(ends)) + (APART + 7 if right else -APART - 5)
    return svg.text(x, box.y + box.height + 13, box.value.shape, "start" if right else "end", size=10.5)


def _lines(edges: list[Edge]) -> str:
    """The lines from one box, and those of the gradients beside them; what they share is drawn once."""
    back = [edge for edge in edges if _value_of(edge.end).reads[_value_of(edge.start)]]
    shift, parts = APART if back else 0.0, list[str]()
    longest = max(edges, key=lambda e: len(e.lanes))
    for edge in edges:
        branch = bool(edge.lanes) and edge is not longest
        parts.append(svg.path(_route(edge, -shift, 0.0, 6.0, branch), _SOLID))
        parts.append(_arrow(edge.end.x + edge.at_end - shift, edge.end.y, down=True))
    longest = max(back, key=lambda e: len(e.lanes), default=longest)
    for edge in back:
        branch = bool(edge.lanes) and edge is not longest
        parts.append(svg.path(_route(edge, shift, 6.0, 0.0, branch), _DASHED))
        if not branch:
            parts.append(_arrow(edge.start.x + edge.at_start + shift, edge.start.y + edge.start.height, down=False))
    return svg.group(parts)


def _value_of(box: Box) -> Value:
    assert isinstance(box, _Drawn)
    return box.value


def _spread_ends(edges: list[Edge]) -> None:
    """Lines that meet at a box keep apart, in the order of where they come from or go to."""
    for box in {box for edge in edges for box in (edge.start, edge.end)}:
        assert isinstance(box, _Drawn)
        arriving = sorted((e for e in edges if e.end is box), key=lambda e: (e.lanes or [e.start])[-1].x)
        leaving = sorted((e for e in edges if e.start is box), key=lambda e: (e.lanes or [e.end])[0].x)
        wide = svg.width_of(box.code) if box.code else box.width - 24
        for k, edge in enumerate(arriving):
            edge.at_end = (k - (len(arriving) - 1) / 2) * min(ENDS, wide / len(arriving))
        ways = list(dict.fromkeys(edge.lanes[0] if edge.lanes else edge for edge in leaving))
        for edge in leaving:
            k = ways.index(edge.lanes[0] if edge.lanes else edge)
            edge.at_start = (k - (len(ways) - 1) / 2) * min(ENDS, (box.width - 16) / len(ways))


def _route(edge: Edge, shift: float, after: float, before: float, branch: bool) -> str:
    """A curve from below the first box, straight through the lanes, to above the last one; a `branch` leaves from the
    last lane, up to which another line is drawn."""
    x, y = edge.start.x + edge.at_start + shift, edge.start.y + edge.start.height + after
    if branch:
        x, y = edge.lanes[-1].x + shift, edge.lanes[-1].y + edge.lanes[-1].height
    steps = [f"M{svg.points(x, y)}"]
    for box in [edge.end] if branch else [*edge.lanes, edge.end]:
        last = box is edge.end
        goal = box.y - (before if last else 0.0)
        to, middle = box.x + shift + (edge.at_end if last else 0.0), (y + goal) / 2
        steps.append(f"C{svg.points(x, middle, to, middle, to, goal)}")
        x, y = to, goal
        if not last:
            y = box.y + box.height
            steps.append(f"V{svg.points(y)}")
    return "".join(steps)


def _arrow(x: float, y: float, down: bool) -> str:
    """A filled head that points down to `y`, a hollow one that points up to it."""
    away = -7.0 if down else 7.0
    look = f"fill:{FORWARD}" if down else f"fill:none;stroke:{BACKWARD};stroke-width:1.5"
    return svg.path(f"M{svg.points(x, y)}L{svg.points(x - 3.5, y + away)}H{svg.points(x + 3.5)}Z", look)


def _legend(x: float, y: float) -> str:
    ahead = svg.path(f"M{svg.points(x, y - 4)}h26", _SOLID)
    back = svg.path(f"M{svg.points(x + 200, y - 4)}h26", _DASHED)
    said = [svg.text(x + 34, y, "forward pass"), svg.text(x + 234, y, "backward pass")]
    return svg.group([ahead, back, *said])
