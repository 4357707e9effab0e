"""Broken promises of a Function on the lines that break them, with edits that mend them."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from chainrule.diagnosis.functions.function_calls import Calls, Failed, Refused
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.repairing.edited import edited
from chainrule.diagnosis.repairing.rewriting import not_in_place
from chainrule.diagnosis.report import Edit, Finding


def on_their_lines(
    broken: list[Finding], hand: Handwritten, again: Callable[[], list[Finding]], calls: Calls
) -> list[Finding]:
    """Broken promises on the lines that break them, where an edit of those lines has been proved to mend them and to leave
    the gradients as they are: a new value for a write in place, `reshape` for `view`. One edit is one finding, whatever
    it mends."""
    found: list[Finding] = []
    edits = list(_edits(broken, hand))
    before = _gradients(calls) if edits else None
    while broken:
        first, *rest = broken
        for cause, edit, text, code in edits if not first.proved else ():
            if cause != first.cause:
                continue
            try:
                with edited(edit, code):
                    left = {f.message for f in again()} if _gradients(calls) == before else {first.message}
            except LookupError:
                continue
            if first.message not in left:
                first.line, first.file, first.edit, first.repair, first.proved = edit.line, edit.file, edit, text, True
                first.text = source.line_at(edit.file, edit.line)
                rest = [b for b in rest if b.message in left or b.cause != cause]
                break
        found.append(first)
        broken = rest
    return found


def _gradients(calls: Calls) -> list[Any] | None:
    """The gradients of an ordinary call, to compare; None where it fails."""
    try:
        return [g if g is None else g.tolist() for g in calls.gradients()[1].values()]
    except (Refused, Failed):
        return None


def _edits(broken: list[Finding], hand: Handwritten) -> Iterator[tuple[str, Edit, str, types.CodeType]]:
    """Edits of the backward pass that may mend a broken promise, each with the cause of what it mends."""
    causes, lines = {b.cause for b in broken}, set()
    for node in hand.recorder.graph.nodes:
        spot = node.meta.get("spot")
        if spot is None or spot.order < hand.began:
            continue
        if node.meta.get("written") and "inplace-corruption" in causes:
            made = not_in_place(node)
            if made is not None:
                yield "inplace-corruption", *made, spot.code
        text = source.line_at(spot.file, spot.line)
        if "contract" in causes and spot.line not in lines and ".view" in text:
            lines.add(spot.line)
            edit = _reshaping(spot.file, spot.line)
            yield "contract", edit, edit.lines[0].strip(), spot.code


def _reshaping(file: str, line: int) -> Edit:
    text = source.lines_of(file)[line - 1]
    return Edit(file, line, line, (text.replace(".view(", ".reshape(").replace(".view_as(", ".reshape_as("),))
