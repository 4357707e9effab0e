"""From wrong lines to findings: one for each mistake, with its cause, a message, and a repair that has been run."""

from __future__ import annotations

import ast
import re
import time
import types
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice

from torch import fx

from chainrule.diagnosis.causes import CAUSES
from chainrule.diagnosis.explaining.diagnose import Diagnoser
from chainrule.diagnosis.explaining.facts import Facts
from chainrule.diagnosis.explaining.mutation import Mutation
from chainrule.diagnosis.explaining.verdict import Diagnosis
from chainrule.diagnosis.locating.in_place import without_writing
from chainrule.diagnosis.locating.locate import Located, Wrong
from chainrule.diagnosis.locating.misplaced import Misplaced
from chainrule.diagnosis.locating.swapped import exchanges
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.reading.spots import Spot, span_of
from chainrule.diagnosis.repairing.added import additions
from chainrule.diagnosis.repairing.callers import after_the_call, is_read_by_the_caller
from chainrule.diagnosis.repairing.derived import Derived
from chainrule.diagnosis.repairing.forgotten import Forgotten, mended
from chainrule.diagnosis.repairing.kept import other_numbers
from chainrule.diagnosis.repairing.option import Option
from chainrule.diagnosis.repairing.proof import repaired
from chainrule.diagnosis.repairing.spelling import Reach, not_in_place, written, written_together
from chainrule.diagnosis.repairing.steps import missing_steps
from chainrule.diagnosis.report import Edit, Finding
from chainrule.diagnosis.truth.case import errors, same
from chainrule.run import needed

_STRANGE = 1.5  # how far it is from what the person wrote to leave one right value on the way
_COMPUTED = re.compile(r"\.\d{6}")  # a number that nobody writes: of this run alone
_WRITES = 4  # statements that write in place
_EXCHANGED = 12  # pairs of values that are exchanged
_KEPT = 2.0
_ADDED = frozenset((None, "lost-path", "missing-term"))  # causes of a path that is added
_TRIED = 6  # repairs that are run before the search for a proof is given up


class Findings:
    """The findings of one run."""

    def __init__(self, located: Located, again: Callable[[], Handwritten]) -> None:
        self.located, self.case, self.again = located, located.case, again
        self.derived = Derived(located)
        self.forgotten = Forgotten(located, self.derived, again)
        self.missing_rows = list(self.forgotten.rows.values())

    def all(self) -> list[Finding]:
        found: list[Finding] = []
        places: dict[tuple[types.CodeType, int], Finding] = {}
        remaining, mended_too = list(self.located.wrong), set[str]()
        at_once = self._at_once(remaining)
        if at_once is not None:
            found.append(at_once[0])
            remaining = [w for w in remaining if w.claim.name not in at_once[1]]
        misplaced = Misplaced(self.located, self.again).finding() if at_once is None else None
        if misplaced is not None:
            found.append(misplaced[0])
            mended_too |= misplaced[1]
            remaining = [w for w in remaining if w.claim.name not in mended_too]
        while remaining:
            turns = _same_turns(remaining)
            remaining = [w for w in remaining if w not in turns]
            wrong = turns[len(turns) // 2]  # in the first turn and the last some values are zero, or have other names
            place = (wrong.claim.spot.code, wrong.claim.spot.index) if wrong.claim.spot is not None else None
            if place is not None and place in places and places[place].line == wrong.claim.spot.line:  # type: ignore[union-attr]
                places[place].message += f"; so is {wrong.claim.target}"  # the same line, run for another layer
                continue
            finding, right = self._finding(wrong, remaining)
            if place is not None:
                places.setdefault(place, finding)
            alike = [w.claim.target for w in remaining if w.claim.name in right]
            others = [f"{t} of another layer" if t == wrong.claim.target else t for t in dict.fromkeys(alike)]
            if others:  # one line, which several gradients are computed from, or that is run for several layers
                finding.message += f"; so {'is' if len(others) == 1 else 'are'} {', '.join(others)}"
            remaining = [w for w in remaining if w.claim.name not in right]
            mended_too |= right
            if (both := self._together(found, finding, wrong)) is not None:
                mended_too |= both
                continue
            if finding.proved:  # of what comes before it in the run, and is right with it, too
                found = [f for f in found if f.proved or f.name not in right]
            found.append(finding)
        return found + self.forgotten.findings(mended_too)

    def _together(self, found: list[Finding], finding: Finding, wrong: Wrong) -> set[str] | None:
        """What is right with the repairs of two parts of one tuple, which the finding before takes in: `return da, db`."""
        before, spot = found[-1] if found else None, wrong.claim.spot
        if (
            before is None
            or spot is None
            or before.cause != finding.cause
            or before.edit is None
            or finding.edit is None
        ):
            return None
        edit = source.both_parts(before.edit, finding.edit)
        right = repaired(edit, spot.code, self.again, self.located) if edit is not None else set()
        if edit is None or not {before.name, finding.name} <= right:
            return None
        before.edit, before.repair = edit, " ".join(line.strip() for line in edit.lines)
        before.message += f"; so is {wrong.claim.target}"
        return right

    def _at_once(self, wrong: list[Wrong]) -> tuple[Finding, set[str]] | None:
        """One finding for all wrong gradients, which are right without a write in place, or with two values exchanged."""
        names = {w.claim.name for w in wrong}
        edits = [(*made, "inplace-corruption", "") for made in islice(without_writing(self.case), _WRITES) if names]
        edits += [
            (edit, code, "wrong-tensor", said)
            for edit, code, said in islice(exchanges(self.case, wrong), _EXCHANGED)
            if len(names) > 1
        ]
        for edit, code, cause, said in edits:
            right = repaired(edit, code, self.again, self.located, whole=True)
            if names <= right:
                claim, *others = [w.claim for w in wrong]
                message = f"{claim.target} {tuple(claim.tensor.shape)} is wrong: {said or _sentence(cause)}"
                if targets := dict.fromkeys(c.target for c in others if c.target != claim.target):
                    message += f"; so {'is' if len(targets) == 1 else 'are'} {', '.join(targets)}"
                finding = Finding(claim.name, edit.line, cause, message, "", file=edit.file)
                return mended(finding, edit), right
        return None

    # -- a wrong gradient --------------------------------------------------------------------------

    def _finding(self, wrong: Wrong, others: list[Wrong]) -> tuple[Finding, set[str]]:
        """The finding, and the gradients that its repair makes right."""
        claim = wrong.claim
        if (step := self._missing_step(wrong, others)) is not None:
            return step
        if (added := self._first_proved(wrong, additions(wrong))) is not None:  # which takes a run, and no search
            return added
        diagnoser = Diagnoser(self.case, self.located, wrong)
        diagnosis = diagnoser.diagnosis()
        line, file = (claim.spot.line, claim.spot.file) if claim.spot is not None else (None, None)
        finding = Finding(claim.name, line, diagnosis.cause, "", self.derived.line(claim, wrong.above), False, file)
        finding.also = diagnosis.also
        shared = {w.claim.name for w in others if wrong.shares(w)}
        common = set(wrong.mine).intersection(n for w in others for n in w.mine)
        options = self._options(wrong, diagnosis.repairs, finding.repair)
        kept = self._kept_otherwise(wrong, diagnosis.repairs)
        best = self._best(claim, [kept, *options] if kept is not None else options, common, shared)
        if best is None or (best[1].cause in _ADDED and is_read_by_the_caller(self.case, wrong)):
            after = self._first_proved(wrong, after_the_call(self.case, wrong))
            if after is not None and (best is None or after[1] >= best[0]):
                return after
        if best is not None:
            option = best[1]
            finding.repair, finding.edit, finding.proved = option.text, option.edit, True
            later = option.cause == "stale-parameter"  # the step that is moved, whatever it stands in
            finding.line, finding.file = option.spot.line if later else option.edit.line, option.spot.file
            finding.cause, finding.also = diagnosis.with_repair(option.cause, option.change)
        else:
            self._place_by(diagnosis.repairs[0].at if diagnosis.repairs else diagnoser.place, finding)
        finding.message = self._message(wrong, diagnosis, finding.cause)
        if finding.file and finding.line and (finding.edit is None or not finding.edit.inserts):
            finding.text = source.line_at(finding.file, finding.line)
        return finding, best[0] if best is not None else set()

    def _missing_step(self, wrong: Wrong, others: list[Wrong]) -> tuple[Finding, set[str]] | None:
        """The finding of one line between a gradient and several that read it, where it makes all of them right."""
        for step in missing_steps(self.located, wrong, others):
            right = repaired(step.edit, step.spot.code, self.again, self.located)
            if step.readers <= right:
                claim, cause, edit = wrong.claim, step.cause, step.edit
                message = self._message(
                    wrong, Diagnosis(cause, ratio=Facts(self.case, self.located, wrong).ratio()), cause
                )
                return Finding(claim.name, edit.line, cause, message, step.text, True, step.spot.file, edit=edit), right
        return None

    def _first_proved(
        self, wrong: Wrong, edits: Iterator[tuple[str, Edit, str, Spot]]
    ) -> tuple[Finding, set[str]] | None:
        """The finding of the first edit that makes the gradient right."""
        for cause, edit, text, spot in edits:
            right = repaired(edit, spot.code, self.again, self.located)
            if wrong.claim.name in right:
                finding = Finding(wrong.claim.name, edit.line, cause, "", text, True, spot.file)
                finding.edit = edit
                finding.text = "" if edit.inserts else source.line_at(spot.file, edit.line)
                finding.message = self._message(wrong, Diagnosis(cause), cause)
                return finding, right
        return None

    def _best(
        self, claim: Claim, options: list[Option], common: set[fx.Node], shared: set[str]
    ) -> tuple[set[str], Option] | None:
        """The repair that makes most gradients right that may have the same reason; of several, the nearest."""
        tried = options[: _TRIED if time.thread_time() < self.case.until else 1]
        if shared:  # first what stands on the way to several of them
            tried = sorted(options, key=lambda o: o.at not in common)[: len(tried)]
        best: tuple[set[str], Option] | None = None
        for option in tried:
            right = repaired(option.edit, option.spot.code, self.again, self.located)
            worth = (len(right & shared), -option.far)
            if claim.name in right and (best is None or worth > (len(best[0] & shared), -best[1].far)):
                best = right, option
            if best is not None and shared <= best[0]:
                break
        return best

    def _kept_otherwise(self, wrong: Wrong, repairs: list[Mutation]) -> Option | None:
        """Another number kept on `ctx`, with which the gradient is right."""
        for edit, spot in other_numbers(self.case.hand, wrong, repairs):
            if wrong.claim.name in repaired(edit, spot.code, self.again, self.located):
                return Option(1.0, edit, " ".join(x.strip() for x in edit.lines), spot, wrong.claim.node)
        return None

    @staticmethod
    def _place_by(node: fx.Node | None, finding: Finding) -> None:
        spot = node.meta.get("spot") if node is not None else None
        if spot is not None:
            finding.repair = finding.repair if spot.line == finding.line else ""  # which is for the other line
            finding.line, finding.file = spot.line, spot.file

    def _options(self, wrong: Wrong, repairs: list[Mutation], derived: str) -> list[Option]:
        """Edits that may repair the line, the best first: near to the person's text, and short."""
        claim = wrong.claim
        found: list[Option] = []
        if repairs and repairs[0].repairs == "stale-parameter":  # the step is to be taken, if later
            repairs = [m for m in repairs if m.repairs == "stale-parameter"]
        for mutation in repairs[: 3 * _TRIED]:
            spot: Spot | None = mutation.at.meta.get("spot") or claim.spot
            if spot is not None and (spot.code, spot.index) in self._of_the_loss:
                continue
            made = None
            if mutation.repairs == "stale-parameter":
                made = self._moved(mutation.at, claim.spot)
            elif mutation.written is not None:
                spot, made = mutation.written.meta["spot"], not_in_place(mutation.written)
            if made is None and spot is not None and mutation.repairs != "stale-parameter":
                bare = mutation.at.meta["operation"] == "alias" and mutation.at.meta.get("span") is None
                assigned = source.assignment_at(spot.span) if bare and spot.span is not None else None
                own = assigned.target if assigned is not None else str(mutation.at.meta["name"]) if bare else ""
                reach = Reach(spot, self.case.recorder, own, lambda: self.case.resized)
                several = len(mutation.changes) > 1 and not mutation.by.meta.keys() & {"value", "instead"}
                made = written_together(mutation.changes, reach) if several else None
                made = made or written(mutation.at, mutation.by, reach)
            if made is not None and spot is not None and all(made[1] != option.text for option in found):
                away = (
                    2.0
                    if made[0].line in self._right_lines
                    else 0.0
                    if claim.spot is not None and made[0].line == claim.spot.line
                    else 0.03
                )
                if mutation.at.meta.get("span") is not None and mutation.at in mutation.by.all_input_nodes:
                    away += _KEPT  # something done to what is saved, rather than where it is used
                found.append(
                    Option(
                        mutation.weight + away + _STRANGE * mutation.strange,
                        *made,
                        spot,
                        mutation.at,
                        mutation.repairs,
                        mutation.weight,
                    )
                )
        edit = self._rewritten(wrong, derived)
        if edit is not None and claim.spot is not None:
            text = " ".join(line.strip() for line in edit.lines)
            if all(text != option.text for option in found):
                elsewhere = bool(found) and min(found, key=lambda o: o.far).edit.line != claim.spot.line
                far = (4.8 if elsewhere else 4.5) + (_STRANGE if _COMPUTED.search(text) else 0)
                found.append(Option(far, edit, text, claim.spot, claim.node))
        return sorted(found, key=lambda option: option.far)

    def _rewritten(self, wrong: Wrong, derived: str) -> Edit | None:
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
        into = source.written_into(assigned.statement) if once else ""
        right = derived.partition(" = ")[2]
        if assigned.augmented or into:
            statement = source.span_of(assigned.statement, span.file)
            return source.replaced(statement, f"{into or assigned.target} = {right}")
        return source.replaced(assigned.value, right)

    @staticmethod
    def _moved(step: fx.Node, reader: Spot | None) -> tuple[Edit, str] | None:
        """The edit that moves an update below the line that needs the parameter as it was."""
        spans = [span_of(step), reader.span if reader is not None else None]
        if spans[0] is None or spans[1] is None:
            return None
        statements = [source.statement_at(span) for span in spans if span is not None]
        if any(s is None for s in statements):
            return None
        places = [source.span_of(s, spans[0].file) for s in statements if s is not None]
        edit = source.moved_below(*places)
        return (edit, "\n".join(line.strip() for line in edit.lines)) if edit is not None else None

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

    def _message(self, wrong: Wrong, diagnosis: Diagnosis, cause: str) -> str:
        claim = wrong.claim
        shape, expected = tuple(claim.tensor.shape), tuple(claim.value.meta["val"].shape)
        if shape != expected:
            return f"{claim.target} has shape {shape}, {claim.name} has {expected}: {_sentence(cause)}"
        given = ", ".join(dict.fromkeys(c.target for c in wrong.above))  # in a loop, each turn has the same names
        fed = self.case.fed(claim, wrong.above, self.case.here)
        truth = self.case.here.truth(claim.value)
        error, relative = errors(fed, truth) if fed is not None else (float("nan"), float("nan"))
        after = f" given {given}" if given else ""
        head = f"{claim.target} {shape} is wrong{after}"
        if diagnosis.ratio is not None:
            said = f" ({diagnosis.said})" if diagnosis.said else ""
            return f"{head}: it is {diagnosis.ratio:.6g}{said} times the right gradient"
        return f"{head}: {_sentence(cause)} (off by up to {error:.3g}, {relative:.2g} of its size)"


def _same_turns(wrong: list[Wrong]) -> list[Wrong]:
    """The first of several wrong claims, with those of the same line in the other turns of its loop."""
    first = wrong[0].claim.spot
    if first is None:
        return wrong[:1]
    place = first.code, first.index, first.call
    spots = [(w, s) for w in wrong if (s := w.claim.spot) is not None]
    return [w for w, s in spots if (s.code, s.index, s.call) == place]


def _sentence(cause: str) -> str:
    text = CAUSES[cause].split(";")[0].split(": ")[0].rstrip(".")
    return text[0].lower() + text[1:]
