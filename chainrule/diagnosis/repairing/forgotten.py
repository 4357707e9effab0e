"""Gradients that are never set: where their line should stand, and what it should be."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.returns import function_of, other_conditions, returned_none
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.derived import Derived
from chainrule.diagnosis.repairing.elsewhere import Proofs
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.report import Edit, Finding, Row
from chainrule.run import needed

_TRIED = 4  # places for a line


class Forgotten:
    """The findings for inputs that should have a gradient, and have none."""

    def __init__(self, located: Located, derived: Derived, proofs: Proofs) -> None:
        self.located, self.case, self.derived, self.proofs = located, located.case, derived, proofs
        self.rows = {n: self._row(n) for n in located.missing}

    def _row(self, node: fx.Node) -> Row:
        return Row(self._name(node), "missing", None, None, None, tuple(node.meta["val"].shape), None)

    def _name(self, node: fx.Node) -> str:
        return self.case.names.get(node, node.name)

    def findings(self, mended: set[str]) -> list[Finding]:
        """One for each line that is missing; `mended` are the gradients that other repairs set already."""
        missing = [n for n in self.located.missing if self._name(n) not in mended]
        found: dict[str, Finding] = {}
        for node in missing:
            name = self._name(node)
            if name in mended:
                continue
            found[name], right = self._finding(node, self.rows[node])
            others = [n for m in missing if (n := self._name(m)) in right and n != name]
            for other in others:  # one line, which runs for several layers
                found[name].message += f"; nor is {other}.g"
                found.pop(other, None)
            mended = mended | right
        return _joined(list(found.values()))

    def _finding(self, node: fx.Node, row: Row) -> tuple[Finding, set[str]]:
        """The finding, and the gradients that its repair sets."""
        name = row.name
        if self.case.hand.asked.function:
            return self._not_returned(node, row)
        message = f"{name}.g is never set, but the loss depends on {name} {row.expected_shape}"
        if node in self.case.hand.stale:
            message = f"{name}.g {row.expected_shape} is left over from an earlier run; this run never sets it"
        finding = Finding(name, None, "missing-gradient", message, self.derived.line_for(node))
        given = node.meta.get("given", node.meta["val"])
        emptied = [w for w in self.case.hand.writes if w.tensor is given and w.value is None]
        if emptied:  # w.g = None
            finding.line, finding.file = emptied[-1].spot.line, emptied[-1].spot.file
            finding.text = source.line_at(finding.file, finding.line)
        if not emptied and (edit := self._instead_of_none(finding, node)) is not None:
            return mended(finding, edit), {name}
        tried: set[tuple[int, str]] = set()
        for spot, target in self._places(node):
            repair = self.derived.line_in(node, spot, target)
            statement = source.statement_at(spot.span) if spot.span is not None else None
            if not repair or statement is None or (statement.lineno, repair) in tried or len(tried) >= _TRIED:
                continue
            tried.add((statement.lineno, repair))
            edit = edits.inserted_after(source.span_of(statement, spot.file), repair)
            right = self.proofs.right(edit, spot.code)
            if name in right:
                finding.repair, finding.edit, finding.proved = repair, edit, True
                return finding, right
        return finding, set()

    def _instead_of_none(self, finding: Finding, node: fx.Node) -> Edit | None:
        """`db = None`: the line is that one, and the edit, where one is proved, sets the gradient there."""
        code = getattr(getattr(self.case.hand.asked.code, "__func__", self.case.hand.asked.code), "__code__", None)
        function = function_of(code) if code is not None else None
        statements = [n for n in ast.walk(function) if isinstance(n, ast.Assign)] if function is not None else []
        empty = [n for n in statements if isinstance(n.value, ast.Constant) and n.value.value is None]
        named = [n for n in empty if _last(finding.name) in names_meant(ast.unparse(n.targets[0]).rpartition(".")[2])]
        if not named or code is None:
            return None
        place = source.span_of(named[-1], code.co_filename)
        finding.line, finding.file, finding.text = place.line, place.file, source.line_at(place.file, place.line)
        spots = [c.spot for c in self.located.known if c.spot is not None and c.spot.code is code]
        for spot in [s for s in spots if s.line <= place.line][::-1][:1] or spots[:1]:
            repair = self.derived.line_in(node, spot, ast.unparse(named[-1].targets[0]))
            edit = edits.replaced(place, repair)
            if repair and finding.name in self.proofs.right(edit, code):
                return edit
        return None

    def _places(self, node: fx.Node) -> Iterator[tuple[Spot, str]]:
        """Where the line could stand, and what it would set: after the last gradient that it reads, or after a line that
        sets one like it; after others that are set where it can be named."""
        gradient = self.case.base.gradients.get(node)
        read = set(needed([gradient])) if gradient is not None else set()
        claims = [c for c in self.located.known if c.spot is not None]
        above = [c for c in claims if self.case.base.gradients.get(c.value) in read]
        above = [c for c in above if c.explicit] or above
        last = max((c.spot.order for c in above if c.spot is not None), default=0)
        nearest = sorted(claims, key=lambda c: (c.spot.order < last, c.spot.order) if c.spot is not None else (True, 0))
        for claim in nearest:
            spot = claim.spot
            assert spot is not None
            reach = Reach(spot, self.case.recorder)
            own, other = reach.names.get(node), reach.names.get(claim.value)
            assigned = source.assignment_at(spot.span) if spot.span is not None else None
            if own is None or other is None or assigned is None:
                continue
            if assigned.target == f"{other}.g":
                yield spot, f"{own}.g"
            elif claim.value.op == "placeholder" and _last(other) in assigned.target:
                before, _, after = assigned.target.rpartition(_last(other))  # self.db is to b what self.dw is to w
                yield spot, f"{before}{_last(own)}{after}"

    def _not_returned(self, node: fx.Node, row: Row) -> tuple[Finding, set[str]]:
        """None where the backward of an autograd.Function should return a gradient."""
        message = f"None is returned for {row.name} {row.expected_shape}, but the output depends on it"
        finding = Finding(row.name, None, "missing-gradient", message, self.derived.line_for(node))
        backward = inspect.unwrap(self.case.hand.asked.code.func)
        given = list(self.case.hand.parameters)
        argument = row.name.split(".")[0]
        place = returned_none(backward.__code__, given.index(argument))
        if place is None:
            return finding, set()
        for edit, code in other_conditions(backward.__code__, given.index(argument), argument, self.case.hand.kept):
            if row.name in self.proofs.right(edit, code):
                return mended(finding, edit), {row.name}
        finding.line, finding.file = place.line, place.file
        finding.text = source.line_at(place.file, place.line)
        known = [c for c in self.located.case.claims if c.spot is not None and c.spot.code is backward.__code__]
        spot = known[-1].spot if known else None
        repair = self.derived.line_in(node, spot, row.name) if spot is not None else ""
        if repair and spot is not None:
            edit = edits.replaced(place, repair.partition(" = ")[2])
            if row.name in self.proofs.right(edit, spot.code):
                return mended(finding, edit), {row.name}
        return finding, set()


def _last(name: str) -> str:
    """The last word of a name.

    >>> _last("self.w"), _last('p["w1"]')
    ('w', 'w1')
    """
    return re.findall(r"\w+", name)[-1]


def mended(finding: Finding, edit: Edit) -> Finding:
    """The finding with an edit that has been proved."""
    finding.line, finding.file, finding.text = edit.line, edit.file, source.line_at(edit.file, edit.line)
    finding.repair, finding.edit, finding.proved = " ".join(x.strip() for x in edit.lines), edit, True
    return finding


def _joined(missing: list[Finding]) -> list[Finding]:
    """One finding for what the objects of a list, or of a class, all lack: `layers.0.w` and `layers.2.w`."""
    found: dict[str, Finding] = {}
    for finding in missing:
        owner, _, attribute = finding.name.rpartition(".")
        first = found.setdefault(attribute if owner and finding.edit is None else finding.name, finding)
        if first is not finding:
            first.message += f"; nor is {finding.name}.g"
    return list(found.values())
