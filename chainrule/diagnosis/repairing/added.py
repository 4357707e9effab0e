"""`=` for `+=` in a loop, or in a function that a loop calls: each turn replaces what the turn before has left."""

from __future__ import annotations

from collections.abc import Iterator

from chainrule.diagnosis import edits
from chainrule.diagnosis.locating.locate import Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case

_TRIED = 3  # statements of one gradient; each takes a run


def additions(case: Case, wrong: Wrong) -> Iterator[tuple[str, Edit, str, Spot]]:
    """The cause, the edit, its text and its place: for the line of a wrong gradient, and for each that writes through an
    index into what it is computed from."""
    spots = [s for n in wrong.mine if (s := n.meta.get("spot")) is not None and _index_of(s)]
    places = {(s.file, s.line): s for s in [*spots, wrong.claim.spot] if s is not None and s.span is not None}
    for spot in list(places.values())[-_TRIED:]:
        turns = (n.meta.get("spot") for n in case.theirs)
        calls = {s.call for s in turns if s is not None and (s.code, s.index) == (spot.code, spot.index)}
        made = edits.accumulated(spot.span, again=len(calls) > 1) if spot.span is not None else None
        if made is not None:
            yield "index-overwrite" if _index_of(spot) else "overwritten-not-accumulated", *made, spot


def _index_of(spot: Spot) -> str:
    """What a line writes into through an index."""
    statement = source.statement_at(spot.span) if spot.span is not None else None
    return source.written_into(statement) if statement is not None else ""
