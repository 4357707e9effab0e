"""Mistakes to write into a person's backward pass: every kind that applies, in up to a few places each."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis import edits
from chainrule.diagnosis.explaining.mutation import Around, Mutation
from chainrule.diagnosis.explaining.mutations import mutations
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.repairing.rewriting import written
from chainrule.diagnosis.report import Edit
from chainrule.diagnosis.truth.case import Case
from chainrule.diagnosis.truth.sketch import Sketches, is_tensor, value_of
from chainrule.recording.names import is_person
from chainrule.run import double, needed, step

PLACES = 3  # lines in which one kind of mistake is made
NAMES = 12  # tensors in reach that are tried in the place of another
EVERY = 8  # with more gradients than this, each has only some of the mistakes of size
LEAST = 5e-4  # of a gradient's size: what is changed less is no mistake that matters
FACTORS = {"wrong-scale": (2, 1.01, 1.001), "sign": (-1,)}
NOT_FINITE = 1e200
FAILURES = (RuntimeError, ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, OverflowError, AttributeError)


@dataclass(frozen=True)
class Planted:
    """An edit that makes a mistake, and the code that it is made in."""

    cause: str
    edit: Edit
    spot: Spot
    after: str
    missing: str = ""  # the gradient that is not computed any more


class Planter:
    """Writes mistakes into the lines that a recorded run's gradients were computed on."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.sketches = Sketches(case.graph)
        self.values = case.here.values
        self.leaves = [c for c in case.claims if c.value.op == "placeholder"] or case.claims
        self._rows: dict[fx.Node, list[fx.Node]] = {}

    def all(self) -> Iterator[Planted]:
        """Every mistake that changes a gradient of this run, in an order that is always the same."""
        seen: set[Edit] = set()
        for planted in [*self._sizes(), *self._missing(), *self._small_changes()]:
            if planted.edit not in seen:
                seen.add(planted.edit)
                yield planted

    # -- the code --------------------------------------------------------------------------------

    @cached_property
    def mine(self) -> list[fx.Node]:
        """The hand-written operations, in order."""
        reads = needed([c.node for c in self.case.claims], given=self.case.forward)
        return [n for n in reads if n not in self.case.forward and n.op != "placeholder" and n in self.values]

    @cached_property
    def upstream(self) -> fx.Node | None:
        given = self.case.hand.upstream
        entry = self.case.recorder.entry(given) if given is not None else None
        return entry.node if entry is not None else None

    @cached_property
    def carries(self) -> set[fx.Node]:
        """The nodes that depend on a gradient."""
        moved = {c.node for c in self.case.claims} | ({self.upstream} if self.upstream is not None else set())
        for node in self.mine:
            if any(n in moved for n in node.all_input_nodes):
                moved.add(node)
        return moved

    def around(self, node: fx.Node) -> Around:
        after = set(self._after(node)) | {node}
        names = self.reach(node).names
        found = {n: t for n, t in names.items() if is_tensor(n) and n in self.values and n not in after}
        return Around(self.sketches, dict(list(found.items())[:NAMES]), self.carries)

    def reach(self, node: fx.Node) -> Reach:
        return Reach(node.meta["spot"], self.case.recorder)

    def _after(self, node: fx.Node) -> list[fx.Node]:
        if node not in self._rows:
            moved = {node}
            self._rows[node] = [n for n in self.mine if any(r in moved for r in n.all_input_nodes) and not moved.add(n)]  # type: ignore[func-returns-value]
        return self._rows[node]

    # -- sizes and signs ---------------------------------------------------------------------------

    def _sizes(self) -> Iterator[Planted]:
        kinds = [(cause, factor) for cause, factors in FACTORS.items() for factor in factors]
        for i, claim in enumerate(self.leaves):
            few = len(self.leaves) > EVERY
            for cause, factor in [kinds[i % len(kinds)], kinds[(i + 1) % len(kinds)]] if few else kinds:
                yield from self.changed(claim, cause, "mul", factor)

    def changed(self, claim: Claim, cause: str, operation: str, *factors: Any) -> Iterator[Planted]:
        """A gradient with an operation around it, such as `1.01 * (x.T @ out.g)`."""
        if claim.spot is None or claim.node not in self.values:
            return
        with self.sketches.kept_only_if():
            by = claim.node
            for factor in factors:
                by = self.sketches.operation(operation, factor, by)
            if factors == (-1,):
                by = self.sketches.operation("neg", claim.node)
            yield from self._written(Mutation(claim.node, by, cause, 0.0), claim.spot)

    def mean_kept(self, claim: Claim, far: float) -> Iterator[Planted]:
        """A gradient that is far off, with the same mean."""
        if claim.spot is None or claim.node not in self.values:
            return
        with self.sketches.kept_only_if():
            spread = self.sketches.operation("sub", claim.node, self.sketches.method("mean", claim.node))
            by = self.sketches.operation("add", claim.node, self.sketches.operation("mul", far, spread))
            yield from self._written(Mutation(claim.node, by, "unknown", 0.0), claim.spot)

    def _written(self, mutation: Mutation, spot: Spot) -> Iterator[Planted]:
        if not is_person(spot.code):
            return
        try:
            found = written(mutation.at, mutation.by, Reach(spot, self.case.recorder))
        except FAILURES:
            return
        if found is not None:
            edit = _still_written(_bare(found[0]), spot)
            yield Planted(mutation.makes, edit, spot, " ".join(line.strip() for line in edit.lines))

    # -- gradients left out ------------------------------------------------------------------------

    def _missing(self) -> Iterator[Planted]:
        for claim in self.leaves:
            if claim.spot is not None and claim.spot.span is not None and is_person(claim.spot.code):
                edit = _left_out(claim.spot)
                if edit is not None:
                    after = " ".join(line.strip() for line in edit.lines)
                    yield Planted("missing-gradient", edit, claim.spot, after, claim.name)

    # -- one operation changed ---------------------------------------------------------------------

    def _small_changes(self) -> Iterator[Planted]:
        nodes = [n for n in self.mine if (s := n.meta.get("spot")) is not None and is_person(s.code)]
        random.Random(0).shuffle(nodes)  # so that the few places of a kind lie in all parts of the code
        lines: dict[str, set[tuple[str, int]]] = {}
        for node in nodes:
            place = node.meta["spot"].file, node.meta["spot"].line
            for planted in self._of(node):
                used = lines.setdefault(planted.cause, set())
                if place not in used and len(used) < PLACES:
                    used.add(place)
                    yield planted

    def _of(self, node: fx.Node) -> Iterator[Planted]:
        found: set[str] = set()
        candidates = self._candidates(node)
        while True:
            with self.sketches.kept_only_if():
                try:
                    mutation = next(candidates, None)
                except FAILURES:
                    return
                if mutation is None:
                    return
                cause = _cause(mutation)
                if cause not in found and self._matters(mutation):
                    for planted in self._written(mutation, node.meta["spot"]):
                        found.add(cause)
                        yield Planted(cause, planted.edit, planted.spot, planted.after)

    def _candidates(self, node: fx.Node) -> Iterator[Mutation]:
        yield from mutations(node, self.around(node))
        if self.upstream is not None and self.upstream in node.all_input_nodes:
            shape = self.sketches.attribute(self.upstream, "shape")
            ones = self.sketches.method("new_ones", self.upstream, shape)
            args = tuple(ones if a is self.upstream else a for a in node.args)
            yield Mutation(node, self.sketches.like(node, args), "upstream-dropped", 0.0)

    def _matters(self, mutation: Mutation) -> bool:
        """Whether the change is more than rounding in some gradient of this run."""
        try:
            with torch.no_grad():
                value = value_of(mutation.by, self.values)
                values = {**self.values, mutation.at: value}
                for node in self._after(mutation.at):
                    values[node] = step(node, values, double)
        except FAILURES:
            return False
        return bool(changes(self, {c.name: values.get(c.node) for c in self.leaves}))


def changes(planter: Planter, found: dict[str, Any], sums: bool = False) -> dict[str, float]:
    """By how much each gradient changed, relative to its size; only those that changed by more than rounding.

    One that is zero is compared with the largest of the others; another shape is infinitely far.

    With `sums`, a gradient is summed to its shape where it can be, as autograd does for its Functions.
    """
    size = max((float(planter.values[c.node].abs().max()) for c in planter.leaves if c.tensor.numel()), default=0.0)
    gaps: dict[str, float] = {}
    for claim in planter.leaves:
        then, now = planter.values[claim.node], found.get(claim.name)
        if now is None:
            gaps[claim.name] = 1.0
            continue
        if sums and now.shape != then.shape:
            now = now.sum_to_size(then.shape)  # raises RuntimeError where it cannot be
        if now.shape != then.shape:
            gaps[claim.name] = float("inf")
        elif then.numel():
            gap, own = float((now - then).abs().nan_to_num(NOT_FINITE, NOT_FINITE).max()), float(then.abs().max())
            least = max(LEAST, 20 * torch.finfo(claim.tensor.dtype).eps)
            if gap > least * own and gap > 1e-11 * size:
                gaps[claim.name] = gap / (own if own > 1e-11 * size else size)
    return gaps


def _cause(mutation: Mutation) -> str:
    at, by = mutation.at, mutation.by
    if at.meta.get("accumulated") or at.meta["operation"] != "add" or len(at.args) != 2:
        return mutation.makes
    span = at.meta["spot"].span
    assigned = source.assignment_at(span) if span is not None else None
    kept = by is at.args[1] and assigned is not None and assigned.augmented == "+"
    return "overwritten-not-accumulated" if kept else mutation.makes


def _still_written(edit: Edit, spot: Spot) -> Edit:
    """The edit of a call that writes in place, `np.add.at(w, i, x)`: where it would leave the call out, a line after it."""
    statement = source.statement_at(spot.span) if spot.span is not None else None
    call = statement.value if isinstance(statement, ast.Expr) else None
    if statement is None or not isinstance(call, ast.Call) or not source.written_into(statement):
        return edit
    text = " ".join(line.strip() for line in edit.lines)
    if text.startswith(ast.unparse(call.func)):
        return edit
    return edits.inserted_after(source.span_of(statement, spot.file), f"{source.written_into(statement)} = {text}")


def _bare(edit: Edit) -> Edit:
    """The edit without brackets in what it changes that mean nothing."""
    if len(edit.lines) != 1 or edit.first != edit.last:
        return edit
    text, then = edit.lines[0], source.lines_of(edit.file)[edit.first - 1]
    start = next((i for i, (a, b) in enumerate(zip(text, then, strict=False)) if a != b), 0)
    for opening in reversed([m.start() for m in re.finditer(r"\(", text) if m.start() >= start]):
        for closing in [m.start() for m in re.finditer(r"\)", text) if m.start() > opening]:
            shorter = text[:opening] + text[opening + 1 : closing] + text[closing + 1 :]
            if _meaning(shorter) == _meaning(text) != "":
                text = shorter
                break
    return Edit(edit.file, edit.first, edit.last, (text,))


def _meaning(line: str) -> str:
    try:
        return ast.dump(ast.parse(line.strip()))
    except SyntaxError:
        return ""


def _left_out(spot: Spot) -> Edit | None:
    """The edit after which a gradient is not set, or not returned."""
    assert spot.span is not None
    assigned = source.assignment_at(spot.span)
    if assigned is None:
        return None
    statement, file = assigned.statement, spot.file
    target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    if isinstance(target, ast.Attribute | ast.Subscript):
        return edits.replaced(source.span_of(statement, file), "pass")
    for returned in _returns(spot):
        for part in _parts(returned.value):
            span = source.span_of(part, file)
            if spot.span.within(span) or (isinstance(part, ast.Name) and part.id == assigned.target):
                return edits.replaced(span, "None")
    return None


def _returns(spot: Spot) -> list[ast.Return]:
    """The return statements of the function that a spot is in."""
    found: list[ast.Return] = []
    for node in ast.walk(source.tree_of(spot.file)):
        if isinstance(node, ast.FunctionDef) and node.lineno <= spot.line <= (node.end_lineno or 0):
            found = [n for n in ast.walk(node) if isinstance(n, ast.Return)]  # the innermost comes last
    return found


def _parts(value: ast.expr | None) -> list[ast.expr]:
    if isinstance(value, ast.Dict):
        return value.values
    return value.elts if isinstance(value, ast.Tuple | ast.List) else [value] if value is not None else []
