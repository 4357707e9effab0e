"""From wrong lines to findings: one for each mistake, with its cause, a message, and a repair that has been run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from chainrule.diagnosis import source
from chainrule.diagnosis.case import errors
from chainrule.diagnosis.causes import CAUSES
from chainrule.diagnosis.derived import Derived
from chainrule.diagnosis.diagnose import Diagnoser, Diagnosis
from chainrule.diagnosis.handwritten import Handwritten
from chainrule.diagnosis.locate import Located, Wrong
from chainrule.diagnosis.mutations import Mutation
from chainrule.diagnosis.proof import is_proved
from chainrule.diagnosis.report import Edit, Finding, Row
from chainrule.diagnosis.spelling import Reach, written
from chainrule.diagnosis.spots import Spot, span_of

_TRIED = 6  # repairs that are run before the search for a proof is given up


class Findings:
    """The findings of one run."""

    def __init__(self, located: Located, again: Callable[[], Handwritten]) -> None:
        self.located, self.case, self.again = located, located.case, again
        self.derived = Derived(located)
        self.missing_rows = [
            Row(self.case.names.get(n, n.name), "missing", None, None, None, tuple(n.meta["val"].shape), None)
            for n in located.missing
        ]

    def all(self) -> list[Finding]:
        found: list[Finding] = []
        places: dict[Any, Finding] = {}
        for wrong in self.located.wrong:
            spot = wrong.claim.spot
            place = (spot.code, spot.index) if spot is not None else wrong
            if place in places:  # one line, run for several layers
                places[place].message += f"; so is {wrong.claim.target}"
                continue
            places[place] = finding = self._finding(wrong)
            found.append(finding)
        found += [self._missing(n, row) for n, row in zip(self.located.missing, self.missing_rows, strict=True)]
        return found

    # -- a wrong gradient --------------------------------------------------------------------------

    def _finding(self, wrong: Wrong) -> Finding:
        claim = wrong.claim
        diagnoser = Diagnoser(self.case, self.located, wrong)
        diagnosis = diagnoser.diagnosis()
        line, file = (claim.spot.line, claim.spot.file) if claim.spot is not None else (None, None)
        finding = Finding(claim.name, line, diagnosis.cause, self._message(wrong, diagnosis), "", False, file)
        finding.also = diagnosis.also
        derived = self.derived.line(claim, wrong.above)
        finding.repair = derived
        options = self._options(wrong, diagnosis.repairs, derived)
        for option in options[:_TRIED]:
            edit, text, at = option
            spot: Spot = at.meta.get("spot") or claim.spot
            if is_proved(edit, spot.code, self.again, self.located, {claim.name}):
                finding.repair, finding.edit, finding.proved = text, edit, True
                span = span_of(at)
                finding.line = source.statement_at(span).lineno if span and source.statement_at(span) else spot.line  # type: ignore[union-attr]
                break
        else:
            self._place_by(diagnosis.repairs, finding)
        if finding.file and finding.line:
            lines = source.lines_of(finding.file)
            finding.text = lines[finding.line - 1].strip() if len(lines) >= finding.line else ""
        return finding

    @staticmethod
    def _place_by(repairs: list[Mutation], finding: Finding) -> None:
        spot = repairs[0].at.meta.get("spot") if repairs else None
        if spot is not None:
            finding.line, finding.file = spot.line, spot.file

    def _options(self, wrong: Wrong, repairs: list[Mutation], derived: str) -> list[tuple[Edit, str, fx.Node]]:
        """Edits that may repair the line, the best first: near to the person's text, and short."""
        claim = wrong.claim
        found: list[tuple[float, Edit, str, fx.Node]] = []
        for mutation in repairs[: 3 * _TRIED]:
            spot: Spot | None = mutation.at.meta.get("spot") or claim.spot
            if spot is None:
                continue
            made = written(mutation.at, mutation.by, Reach(spot, self.case.recorder), {})
            if made is not None and all(made[1] != text for _, _, text, _ in found):
                found.append((mutation.weight + len(made[1]) / 40, made[0], made[1], mutation.at))
        span = claim.spot.span if claim.spot is not None else None
        assigned = source.assignment_at(span) if span is not None and derived else None
        if assigned is not None and span is not None:
            _, _, right = derived.partition(" = ")
            statement = source.span_of(assigned.statement, span.file)
            if assigned.augmented or assigned.target == "return":
                edit = source.replaced(
                    statement if assigned.augmented else assigned.value,
                    f"{assigned.target} = {right}" if assigned.augmented else right,
                )
            else:
                edit = source.replaced(assigned.value, right)
            text = " ".join(line.strip() for line in edit.lines)
            far = 2.5 + len(text) / 40
            if all(text != t for _, _, t, _ in found):
                found.append((far, edit, text, claim.node))
        found.sort(key=lambda option: option[0])
        return [(edit, text, at) for _, edit, text, at in found]

    def _message(self, wrong: Wrong, diagnosis: Diagnosis) -> str:
        claim = wrong.claim
        shape, expected = tuple(claim.tensor.shape), tuple(claim.value.meta["val"].shape)
        if shape != expected:
            return f"{claim.target} has shape {shape}, {claim.name} has {expected}: {_sentence(diagnosis.cause)}"
        given = ", ".join(c.target for c in wrong.above)
        fed = self.case.fed(claim, wrong.above, self.case.here)
        truth = self.case.here.truth(claim.value)
        error, relative = errors(fed, truth) if fed is not None else (float("nan"), float("nan"))
        after = f" given {given}" if given else ""
        head = f"{claim.target} {shape} is wrong{after}"
        if diagnosis.ratio is not None:
            said = f" ({diagnosis.said})" if diagnosis.said else ""
            return f"{head}: it is {diagnosis.ratio:.6g}{said} times the right gradient"
        return f"{head}: {_sentence(diagnosis.cause)} (off by up to {error:.3g}, {relative:.2g} of its size)"

    # -- a gradient that is not there --------------------------------------------------------------

    def _missing(self, node: fx.Node, row: Row) -> Finding:
        name = row.name
        message = f"{name}.g is never set, but the loss depends on {name} {row.expected_shape}"
        if node in self.case.hand.stale:
            message = f"{name}.g {row.expected_shape} is left over from an earlier run; this run never sets it"
        finding = Finding(name, None, "missing-gradient", message, self.derived.line_for(node))
        after = self.derived.last_before(node)
        if after is None or not finding.repair:
            return finding
        spot, target = after
        repair = self.derived.line_in(node, spot, target)
        statement = source.statement_at(spot.span) if spot.span is not None else None
        if repair and statement is not None:
            edit = source.inserted_after(source.span_of(statement, spot.file), repair)
            if is_proved(edit, spot.code, self.again, self.located, {name}):
                finding.repair, finding.edit, finding.proved = repair, edit, True
        return finding


def _sentence(cause: str) -> str:
    text = CAUSES[cause].split(";")[0].split(": ")[0].rstrip(".")
    return text[0].lower() + text[1:]
