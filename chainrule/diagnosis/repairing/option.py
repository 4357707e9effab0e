"""Edits that may repair a line, and how far each goes from what the person wrote."""

from __future__ import annotations

import ast
import re
import types
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.explaining.mutation import Mutation
from chainrule.diagnosis.locating.locate import Located, Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import Span, Spot, span_of
from chainrule.diagnosis.repairing.numbers import Naming
from chainrule.diagnosis.repairing.parentheses import binding_of, placed
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.repairing.rewriting import not_in_place, written, written_together
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import same
from chainrule.run import needed

_STRANGE = 1.5  # how far it is from what the person wrote to leave one right value on the way
_COMPUTED = re.compile(r"\.\d{6}")  # a number that nobody writes: of this run alone
_KEPT = 2.0
_SHORT = 60  # characters that go as far as one step
_PLAIN = 0.05  # how far a plain number is from a name for it


@dataclass
class Option:
    """An edit that may repair a line."""

    weight: float
    edit: Edit
    text: str  # the new statement
    spot: Spot
    at: fx.Node  # the operation that is changed
    cause: str | None = None
    change: float = 0.0  # the weight of the change, wherever it stands

    @property
    def far(self) -> float:
        """How far it goes from what the person wrote; a longer text is farther."""
        before = sum(
            len(line.strip()) for line in source.lines_of(self.edit.file)[self.edit.first - 1 : self.edit.last]
        )
        return self.weight + max(len(self.text) - before, -20) / _SHORT


class Options:
    """The edits that changes of operations come to, as they are written in the person's lines."""

    def __init__(self, located: Located) -> None:
        self.located, self.case = located, located.case
        self._reaches: dict[tuple[int, str], Reach] = {}
        self._calls: dict[tuple[types.CodeType, int], Spot] = {}

    def of(self, wrong: Wrong, repairs: list[Mutation], derived: str) -> list[Option]:
        """Edits that may repair the line, the best first: near to the person's text, and short."""
        claim = wrong.claim
        found: dict[str, Option] = {}
        if repairs and repairs[0].repairs == "stale-parameter":  # the step is to be taken, if later
            repairs = [m for m in repairs if m.repairs == "stale-parameter"]
        for mutation in repairs:
            ways = self._edits(mutation, claim.spot)
            for k, (spot, edit, text) in enumerate(ways):
                away = self._away(edit, mutation, claim.spot)
                longer = max(len(ways[0][2]) - len(text), 0) / _SHORT  # a name is none the farther for its length
                weight = mutation.weight + away + _STRANGE * mutation.strange + k * (_PLAIN + longer)
                option = Option(weight, edit, text, spot, mutation.at, mutation.repairs, mutation.weight)
                found.setdefault(text, option)
        options = list(found.values())
        whole = self.rewritten(wrong, derived)
        if whole is not None and claim.spot is not None:
            text = " ".join(line.strip() for line in whole.lines)
            if text not in found:
                elsewhere = bool(found) and min(options, key=lambda o: o.far).edit.line != claim.spot.line
                far = (4.8 if elsewhere else 4.5) + (_STRANGE if _COMPUTED.search(text) else 0)
                options.append(Option(far, whole, text, claim.spot, claim.node))
        return sorted(options, key=lambda option: option.far)

    def _edits(self, mutation: Mutation, reader: Spot | None) -> list[tuple[Spot, Edit, str]]:
        """Where a change is written, and how: with names for its numbers, and as they are."""
        given: Spot | None = mutation.at.meta.get("spot") or reader
        place: Spot | None = mutation.by.meta.get("place") if "instead" in mutation.by.meta else None
        spot = given if place is not None else self.in_backward(given)
        if spot is None:
            return []
        span: Span | None = spot.span if spot is not given else None
        made: tuple[Edit, str] | None = None
        if mutation.repairs == "stale-parameter":
            made = _moved(mutation.at, reader)
            return [(spot, *made)] if made is not None else []
        if mutation.written is not None:
            spot, made = mutation.written.meta["spot"], not_in_place(mutation.written)
        if made is not None:
            return [(spot, *made)]
        bare = mutation.at.meta["operation"] == "alias" and mutation.at.meta.get("span") is None
        assigned = source.assignment_at(spot.span) if bare and spot.span is not None else None
        own = assigned.target if assigned is not None else str(mutation.at.meta["name"]) if bare else ""
        reach = self._reach(spot, own)
        several = len(mutation.changes) > 1 and not mutation.by.meta.keys() & {"value", "instead"}
        found: list[tuple[Spot, Edit, str]] = []
        for reach.known_numbers.naming in Naming:
            made = written_together(mutation.changes, reach) if several and span is None else None
            made = made or written(mutation.at, mutation.by, reach, span)
            if made is not None and (place or spot, *made) not in found:
                found.append((place or spot, *made))
        return found

    def _reach(self, spot: Spot, own: str) -> Reach:
        if (id(spot), own) not in self._reaches:
            reach = Reach(spot, self.case.recorder, own, lambda: self.case.resized)
            for node, text in list(reach.names.items()):
                if node in self.case.recomputed:
                    reach.names.setdefault(self.case.recomputed[node], text)
            self._reaches[id(spot), own] = reach
        return self._reaches[id(spot), own]

    def _away(self, edit: Edit, mutation: Mutation, spot: Spot | None) -> float:
        """How far the place of an edit is from where the mistake should be."""
        away = 0.03
        if edit.line in self._right_lines:
            away = 2.0
        elif spot is not None and edit.line == spot.line:
            away = 0.0
        if mutation.at.meta.get("span") is not None and mutation.at in mutation.by.all_input_nodes:
            away += _KEPT  # something done to what is saved, rather than where it is used
        return away

    def rewritten(self, wrong: Wrong, derived: str) -> Edit | None:
        """The edit that writes the derived line in the place of theirs; none for what a loop adds up, of which it is the
        whole."""
        spot = wrong.claim.spot
        if spot is not None and (spot.code, spot.index) in self._of_the_loss:
            return None
        if spot is not None and wrong.claim.explicit and source.loop_variables(spot.file, spot.line):
            return None
        span = spot.span if spot is not None else None
        assigned = source.assignment_at(span) if span is not None and derived else None
        if assigned is None or span is None or spot is None:
            return None
        places = [(s.code, s.index) for n in wrong.mine if (s := n.meta.get("spot")) is not None]
        bound = isinstance(assigned.statement, ast.Assign) and span.within(assigned.value)  # rows[0] = g.sum(0)
        once = places.count((spot.code, spot.index)) < 2 and not bound
        written = once and not source.writes_all(assigned.statement)  # which stays a write: others hold the array
        into = source.written_into(assigned.statement) if written else ""
        right = derived.partition(" = ")[2]
        if assigned.augmented or into:
            statement = source.span_of(assigned.statement, span.file)
            return edits.replaced(statement, f"{into or assigned.target} = {right}")
        return edits.replaced(*placed(assigned.value, right, binding_of(right)))

    def in_backward(self, spot: Spot | None) -> Spot | None:
        """The place itself; in a function that the loss calls too, where the backward pass calls it for what is computed
        there; None where it is not what that returns."""
        if spot is None or (spot.code, spot.index) not in self._of_the_loss:
            return spot
        statement = source.statement_at(spot.span) if spot.span is not None else None
        if not isinstance(statement, ast.Return) or statement.value is None or spot.span is None:
            return None
        caller = spot.called_from if source.span_of(statement.value, spot.file) == spot.span else None
        if caller is None or (caller.code, caller.index) in self._of_the_loss:
            return None
        return self._calls.setdefault((caller.code, caller.index), caller)

    @cached_property
    def _of_the_loss(self) -> set[tuple[types.CodeType, int]]:
        """Places that compute the loss too, as in a function that both passes call: a change there is none of a gradient
        alone."""
        spots = [n.meta.get("spot") for n in needed([self.case.base.output])]
        return {(s.code, s.index) for s in spots if s is not None}

    @cached_property
    def _right_lines(self) -> set[int]:
        """The lines that give a gradient as it should be: what is wrong is not mended there."""
        here, found = self.case.here, set()
        for claim in [*self.located.known, *self.case.guessed]:
            if claim.spot is not None and claim.node in here.values:
                right = same(here.values[claim.node], here.truth(claim.value))
                found |= {claim.spot.line} if right else set()
        return found


def _moved(step: fx.Node, reader: Spot | None) -> tuple[Edit, str] | None:
    """The edit that moves an update below the line that needs the parameter as it was."""
    spans = [span_of(step), reader.span if reader is not None else None]
    if spans[0] is None or spans[1] is None:
        return None
    statements = [source.statement_at(span) for span in spans if span is not None]
    if any(s is None for s in statements):
        return None
    places = [source.span_of(s, spans[0].file) for s in statements if s is not None]
    edit = edits.moved_below(*places)
    return (edit, "\n".join(line.strip() for line in edit.lines)) if edit is not None else None
