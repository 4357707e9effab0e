"""What a forward pass keeps on `ctx` besides tensors, for its backward: a size, an axis, a probability, a flag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from chainrule.diagnosis import edits
from chainrule.diagnosis.explaining.mutation import Mutation
from chainrule.diagnosis.locating.locate import Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.report import Edit

_LINES = 10  # changes whose lines are looked at
_TRIED = 8  # other values of one number; each takes a run


def other_numbers(hand: Handwritten, wrong: Wrong, repairs: Sequence[Mutation]) -> Iterator[tuple[Edit, Spot]]:
    """Edits that keep another number, for those that are read on the lines of a wrong gradient: where changes are known
    that repair it, on the lines that they change."""
    changed = [m.at for m in repairs[:_LINES]] or wrong.mine
    lines = {(s.file, s.line) for n in changed if (s := n.meta.get("spot")) is not None}
    text = "\n".join(source.line_at(file, line) for file, line in lines)
    for name, (value, spot) in hand.kept.items():
        assigned = source.assignment_at(spot.span) if spot.span is not None else None
        if assigned is None or isinstance(value, bool) or f".{name}" not in text:
            continue
        old = source.text_at(assigned.value)
        texts = dict.fromkeys(t for t in _other(value, spot, hand) if t != old)
        for text in islice(texts, _TRIED):
            yield edits.replaced(assigned.value, text), spot


def _other(value: float, spot: Spot, hand: Handwritten) -> Iterator[str]:
    """What else may have been meant: a number or a size that the forward pass has, or the rest to one."""
    reach = Reach(spot, hand.recorder)
    known = {**reach.numbers, **reach.integers}
    yield from (name for name, number in known.items() if number != value and "." not in name)
    if 0 < value < 1:
        yield f"{1 - value:.12g}"
    of_sizes: dict[int, str] = {}
    for node, name in sorted(reach.names.items(), key=lambda pair: (pair[1].count("."), len(pair[1]))):
        for axis, size in enumerate(getattr(node.meta["val"], "shape", ())):
            of_sizes.setdefault(int(size), f"{name}.shape[{axis - node.meta['val'].ndim if axis else 0}]")
    if isinstance(value, int):
        yield from (text for size, text in of_sizes.items() if size not in (value, 1))
        yield from (str(axis) for axis in (-1, 0, 1, 2) if axis != value)
