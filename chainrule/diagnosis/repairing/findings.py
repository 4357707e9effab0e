"""From wrong lines to findings: one for each mistake, with its cause, a message, and a repair that has been run."""

from __future__ import annotations

import types
from collections.abc import Iterator

from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.causes import sentence_of
from chainrule.diagnosis.explaining.diagnose import Diagnoser
from chainrule.diagnosis.explaining.facts import Facts
from chainrule.diagnosis.explaining.mutation import Mutation
from chainrule.diagnosis.explaining.verdict import Diagnosis
from chainrule.diagnosis.locating.locate import Located, Wrong
from chainrule.diagnosis.locating.misplaced import Misplaced
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.added import additions
from chainrule.diagnosis.repairing.at_once import AtOnce
from chainrule.diagnosis.repairing.callers import after_the_call, is_read_by_the_caller
from chainrule.diagnosis.repairing.derived import Derived
from chainrule.diagnosis.repairing.edited import rewritten
from chainrule.diagnosis.repairing.elsewhere import Proofs
from chainrule.diagnosis.repairing.forgotten import Forgotten
from chainrule.diagnosis.repairing.kept import other_numbers
from chainrule.diagnosis.repairing.option import Option, Options
from chainrule.diagnosis.repairing.proof import kept
from chainrule.diagnosis.repairing.steps import missing_steps
from chainrule.diagnosis.report import Edit, Finding
from chainrule.diagnosis.truth.case import Case, errors
from chainrule.diagnosis.truth.reruns import Rerun
from chainrule.work import work

_ADDED = frozenset((None, "lost-path", "missing-term"))  # causes of a path that is added
_WRITTEN = 18  # changes that are written as edits
_SECONDS = 6.0  # of work, after which no further cause or repair is looked for
_TRIED = 6  # repairs that are run before the search for a proof is given up


class Findings:
    """The findings of one run."""

    def __init__(self, located: Located, rerun: Rerun) -> None:
        self.located, self.case, self.rerun = located, located.case, rerun
        self.case.until = min(self.case.until, work() + _SECONDS)
        self.proofs = Proofs(located, rerun)
        self.rewrites: list[Edit] = []  # proved, and nothing but the derived line in the place of theirs
        self.derived, self.options = Derived(located), Options(located)
        self.at_once = AtOnce(located, self.proofs)
        self.forgotten = Forgotten(located, self.derived, self.proofs)
        self.missing_rows = list(self.forgotten.rows.values())

    def all(self) -> list[Finding]:
        found: list[Finding] = []
        places: dict[tuple[types.CodeType, int], Finding] = {}
        remaining, mended_too = list(self.located.wrong), set[str]()
        at_once = self.at_once.first(remaining)
        if at_once is not None:
            found.append(at_once[0])
            remaining = [w for w in remaining if w.claim.name not in at_once[1]]
        misplaced = Misplaced(self.located, self.proofs).finding() if at_once is None else None
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
            others = [f"another {t}" if t == wrong.claim.target else t for t in dict.fromkeys(alike)]
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
        return self.at_once.instead_of(self._beside(found + self.forgotten.findings(mended_too)))

    def _beside(self, found: list[Finding]) -> list[Finding]:
        """The findings, with repairs that are proved once those of others are made: of two mistakes one above the other,
        the one may make nothing right by itself, or no less than the whole derived line does."""
        left = [f for f in found if not f.proved or f.edit in self.rewrites]
        repairs = [e for e in (self._edit_of(f, f in left) for f in found) if e is not None]
        nearer = {f.name: self._with_others(f, [e for e in repairs if e[2] != f.name]) for f in left}
        told = {f.name for f in found if f not in left or nearer[f.name] is not None}
        if not {name for _, _, name in repairs} <= told:  # they would be told by what is not proved itself
            return found
        return [nearer.get(f.name) or f for f in found]

    def _edit_of(self, finding: Finding, is_left: bool) -> tuple[Edit, types.CodeType, str] | None:
        """A repair that is to be made while others are looked for: proved, or right on the way."""
        if is_left:
            proofs = ((e, code) for e, (code, names) in self.proofs.untold.items() if finding.name in names)
        else:
            proofs = ((e, code) for e, code in self.proofs.proved.items() if e == finding.edit)
        of_as_many_lines = ((e, c) for e, c in proofs if len(e.lines) == e.last - e.first + 1)
        return next(((e, c, finding.name) for e, c in of_as_many_lines), None)

    def _with_others(self, finding: Finding, others: list[tuple[Edit, types.CodeType, str]]) -> Finding | None:
        """The proved finding for the same gradient in a run with other repairs made."""
        if not others or work() > self.case.until:
            return None
        try:
            with rewritten([(edit, code) for edit, code, _ in others]), kept(self.case):
                located = Located(Case(self.rerun()))
                located.case.until = self.case.until
                found = Findings(located, self.rerun).all() if located.wrong else []
        except LookupError:
            return None
        taken = {(edit.file, line) for edit, _, _ in others for line in _lines(edit)}
        for other in found:
            edit = other.edit
            if other.name == finding.name and other.proved and edit is not None:
                return other if taken.isdisjoint((edit.file, k) for k in _lines(edit)) else None
        return None

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
        edit = edits.both_parts(before.edit, finding.edit)
        right = self.proofs.right(edit, spot.code) if edit is not None else set()
        if edit is None or not {before.name, finding.name} <= right:
            return None
        before.edit, before.repair = edit, " ".join(line.strip() for line in edit.lines)
        before.message += f"; so is {wrong.claim.target}"
        return right

    # -- a wrong gradient --------------------------------------------------------------------------

    def _finding(self, wrong: Wrong, others: list[Wrong]) -> tuple[Finding, set[str]]:
        """The finding, and the gradients that its repair makes right."""
        claim = wrong.claim
        if (step := self._missing_step(wrong, others)) is not None:
            return step
        if (
            added := self._first_proved(wrong, additions(self.case, wrong))
        ) is not None:  # which takes a run, and no search
            return added
        diagnoser = Diagnoser(self.case, self.located, wrong)
        diagnosis = diagnoser.diagnosis()
        line, file = (claim.spot.line, claim.spot.file) if claim.spot is not None else (None, None)
        finding = Finding(claim.name, line, diagnosis.cause, "", self.derived.line(claim, wrong.above), False, file)
        finding.also = diagnosis.also
        shared = {w.claim.name for w in others if wrong.shares(w)}
        common = wrong.common(others)
        options = self.options.of(wrong, diagnosis.repairs[:_WRITTEN], finding.repair)
        kept = self._kept_otherwise(wrong, diagnosis.repairs)
        best = self._best(claim, [kept, *options] if kept is not None else options, common, shared)
        if best is None and any(o.edit in self.proofs.refuted for o in options):  # another may be meant
            options = self.options.of(wrong, diagnosis.repairs[: 4 * _WRITTEN], finding.repair)
            best = self._best(claim, options, common, shared)
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
            self.rewrites += [option.edit] if option.cause is None else []
        else:
            node = diagnosis.repairs[0].at if diagnosis.repairs else diagnoser.place
            spot = self.options.in_backward(node.meta.get("spot")) if node is not None else None
            if spot is not None:
                finding.repair = finding.repair if spot.line == finding.line else ""  # which is for the other line
                finding.line, finding.file = spot.line, spot.file
            whole = self.options.rewritten(wrong, finding.repair)
            if whole in self.proofs.refuted or whole in self.proofs.failed:  # it has numbers, or a turn, of this run
                finding.repair = ""
        finding.message = self._message(wrong, diagnosis, finding.cause)
        if finding.file and finding.line and (finding.edit is None or not finding.edit.inserts):
            finding.text = source.line_at(finding.file, finding.line)
        return finding, best[0] if best is not None else set()

    def _missing_step(self, wrong: Wrong, others: list[Wrong]) -> tuple[Finding, set[str]] | None:
        """The finding of one line between a gradient and several that read it, where it makes all of them right."""
        for step in missing_steps(self.located, wrong, others):
            right = self.proofs.right(step.edit, step.spot.code)
            if step.readers <= right:
                claim, cause, edit = wrong.claim, step.cause, step.edit
                message = self._message(
                    wrong, Diagnosis(cause, ratio=Facts(self.case, self.located, wrong).ratio()), cause
                )
                return Finding(claim.name, edit.line, cause, message, step.text, True, step.spot.file, edit=edit), right
        return None

    def _first_proved(
        self, wrong: Wrong, tried: Iterator[tuple[str, Edit, str, Spot]]
    ) -> tuple[Finding, set[str]] | None:
        """The finding of the first edit that makes the gradient right."""
        for cause, edit, text, spot in tried:
            right = self.proofs.right(edit, spot.code)
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
        left = _TRIED if work() < self.case.until else 1
        if shared:  # first what stands on the way to several of them
            options = sorted(options, key=lambda o: o.at not in common)
        best: tuple[set[str], Option] | None = None
        for option in options:
            right = self.proofs.right(option.edit, option.spot.code)
            worth = (len(right & shared), -option.far)
            if claim.name in right and (best is None or worth > (len(best[0] & shared), -best[1].far)):
                best = right, option
            left -= option.edit not in self.proofs.refuted
            if (best is not None and shared <= best[0]) or left <= 0 or work() > self.case.until:
                break
        return best

    def _kept_otherwise(self, wrong: Wrong, repairs: list[Mutation]) -> Option | None:
        """Another number kept on `ctx`, with which the gradient is right."""
        for edit, spot in other_numbers(self.case.hand, wrong, repairs):
            if wrong.claim.name in self.proofs.right(edit, spot.code):
                return Option(1.0, edit, " ".join(x.strip() for x in edit.lines), spot, wrong.claim.node)
        return None

    def _message(self, wrong: Wrong, diagnosis: Diagnosis, cause: str) -> str:
        claim = wrong.claim
        shape, expected = tuple(claim.tensor.shape), tuple(claim.value.meta["val"].shape)
        if shape != expected:
            return f"{claim.target} has shape {shape}, {claim.name} has {expected}: {sentence_of(cause)}"
        given = ", ".join(dict.fromkeys(c.target for c in wrong.above))  # in a loop, each turn has the same names
        fed = self.case.fed(claim, wrong.above, self.case.here)
        truth = self.case.here.truth(claim.value)
        error, relative = errors(fed, truth) if fed is not None else (float("nan"), float("nan"))
        after = f" given {given}" if given else ""
        if wrong.row is not None and wrong.row.status in ("right", "close"):
            after += f" (right here only as {given} {'is' if len(wrong.above) == 1 else 'are'} wrong)"
        head = f"{claim.target} {shape} is wrong{after}"
        if diagnosis.ratio is not None:
            said = f" ({diagnosis.said})" if diagnosis.said else ""
            return f"{head}: it is {diagnosis.ratio:.6g}{said} times the right gradient"
        return f"{head}: {sentence_of(cause)} (off by up to {error:.3g}, {relative:.2g} of its size)"


def _same_turns(wrong: list[Wrong]) -> list[Wrong]:
    """The first of several wrong claims, with those of the same line in the other turns of its loop."""
    first = wrong[0]
    return [w for w in wrong if w is first or w.is_turn_of(first)]


def _lines(edit: Edit) -> range:
    return range(edit.first, edit.last + 1)
