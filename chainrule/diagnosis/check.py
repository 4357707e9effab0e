"""Compares hand-written gradients with the truth, and finds the lines that are wrong by themselves."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.deriving import EVERYTHING, derivation
from chainrule.diagnosis.assignments import Assignments
from chainrule.diagnosis.evidence import RIGHT, Evidence, errors
from chainrule.diagnosis.handwritten import Handwritten, run_handwritten
from chainrule.diagnosis.report import Finding, Report, Row
from chainrule.errors import ChainruleError
from chainrule.program import differentiable
from chainrule.run import needed
from chainrule.show.layout import Layout
from chainrule.show.names import keys
from chainrule.simplify import simplify

CLOSE = 200  # in the person's dtype, in units of its rounding error
NUDGE = 1e-4  # how far the inputs are moved to see whether an error exists only at a kink
AWAY_FROM_KINKS = 1e-6


def check(code: Any, *args: Any, loss: Any = None, **kwargs: Any) -> Report:
    """Compare every gradient that `code(*args)` writes by hand with the truth.

    `code` is a function that leaves `.g` on tensors (its loss is what it returns, or its local `loss`,
    or the local that `loss=` names); or a model called as `code(*args)` with `code.backward()`; or a
    function that calls a torch.autograd.Function. The hand-written pass is recorded and run again in
    float64, so that rounding is not taken for a mistake.

    Raises ChainruleError where no loss is found, or nothing was written by hand.

    >>> w = torch.tensor([1., 2.])
    >>> def step(x):
    ...     loss = (x * w).sum()
    ...     w.g = 2 * x
    >>> report = check(step, torch.ones(2))
    >>> report.ok, report.rows[0].status, report.findings[0].repair
    (False, 'wrong', 'w.g = x')
    """
    hand = run_handwritten(code, args, loss, kwargs)
    if hand.functions and not hand.gradients:
        from chainrule.diagnosis.functions import check_functions

        return check_functions(hand)
    if not hand.gradients:
        raise ChainruleError(
            f"{getattr(code, '__name__', type(code).__name__)} left no .g on any tensor; "
            "write the gradients as w.g = ..., or give a model with backward()"
        )
    return _Comparison(hand).report()


class _Comparison:
    def __init__(self, hand: Handwritten) -> None:
        self.hand = hand
        self.base = derivation(hand.recorder, hand.output, EVERYTHING, hand.upstream)._base
        names = keys(hand.recorder.graph.nodes)
        self.names = {v: names.get(v) or v.name for v in [*hand.nodes, *self.base.inputs]}
        self.assigned = Assignments(hand, self.base, self.names)
        self.here = Evidence(hand, self.base)

    @cached_property
    def nearby(self) -> Evidence:
        return Evidence(self.hand, self.base, NUDGE)

    def report(self) -> Report:
        report = Report([])
        for value in self.assigned.in_order():
            row = self._row(value)
            report.rows.append(row)
            if row.status == "wrong" and self._tracked(value) and self.nearby.error(value) <= AWAY_FROM_KINKS:
                row.status = "right"
                report.notes.append(f"{row.name}.g follows another convention than autograd where the slope jumps")
            elif row.status not in ("right", "close") and self._wrong_by_itself(value):
                report.findings.append(self._finding(value, row))
        for value in self._missing():
            row = Row(self.names[value], "missing", None, None, None, _shape(value), None)
            report.rows.append(row)
            report.findings.append(self._finding(value, row))
        return report

    def _row(self, value: fx.Node) -> Row:
        g = self.hand.gradients[value]
        place = self.assigned.place(value)
        if tuple(g.shape) != _shape(value):
            return Row(self.names[value], "wrong shape", None, None, tuple(g.shape), _shape(value), *place)
        error, relative = errors(self.here.hand(value), self.here.truth(value))
        status = "right" if relative <= RIGHT else "wrong"
        if status == "right" or not self._tracked(value):
            # by the person's own numbers: rounding of their dtype, or a path that could not be recorded
            error, relative = errors(g.double(), self.here.truth(value))
            limit = CLOSE * torch.finfo(g.dtype).eps if g.dtype.is_floating_point else 0.0
            status = "right" if relative <= limit else "close" if status == "right" else "wrong"
        return Row(self.names[value], status, error, relative, tuple(g.shape), _shape(value), *place)

    def _tracked(self, value: fx.Node) -> bool:
        """Whether a hand-written gradient was computed from what the loss was computed from."""
        used = set(needed([self.base.output]))
        read = needed([self.hand.nodes[value]])
        return all(n in used or not differentiable(n) for n in read if n.op == "placeholder")

    def _wrong_by_itself(self, value: fx.Node) -> bool:
        """Whether the line is wrong given the gradients that it was computed from."""
        above = self.assigned.computed_from(value)
        if value not in self.base.gradients or not above:
            return True
        error = self.here.error_given(value, above)
        if error is None or error <= RIGHT:
            return False  # right, or made from a shape that no line could use
        moved = self.nearby.error_given(value, above)
        return moved is None or moved > AWAY_FROM_KINKS or not self._tracked(value)

    def _missing(self) -> list[fx.Node]:
        """Inputs that should have a gradient: they require one, had one, or stand where others have theirs."""
        roles = {role for value in self.hand.nodes if value.op == "placeholder" for role in self._roles(value)}
        inputs = [n for n in self.base.inputs if n in self.base.gradients and n not in self.hand.nodes]
        inputs = [n for n in inputs if n.meta["operation"] == "input" and differentiable(n)]
        asked = [n for n in inputs if n.meta.get("given", n.meta["val"]).requires_grad or n in self.hand.stale]
        alike = [n for n in inputs if n not in asked and roles & set(self._roles(n))]
        return [*asked, *alike]

    def _roles(self, value: fx.Node) -> list[tuple[str, int]]:
        """As what the value enters the forward pass: the second operand of a matmul, say."""
        used = set(needed([self.base.output]))
        readers = [u for u in value.users if u in used and u.meta["phase"] == "forward"]
        return [(u.meta["operation"], i) for u in readers for i, a in enumerate(u.args) if a is value and i > 0]

    @cached_property
    def _derived_lines(self) -> dict[str, str]:
        """The derived backward lines by target, for the inputs whose gradients the person writes."""
        names = {self.names[v] for v in [*self.hand.nodes, *self._missing()]}
        program = self.base.seeded(explicit=self.hand.upstream is not None)
        program.wanted = [n for n in program.wanted if n.meta["name"] in names] or program.wanted
        simplify(program)
        written = {keys(program.graph.nodes).get(n): n for n in program.graph.nodes if n.meta["phase"] == "forward"}
        only = {written[name] for name in names if name in written}  # a repair may read no other gradient
        return {line.target: line.text for line in Layout(program, dotted=True, only=only).part("backward")}

    def _finding(self, value: fx.Node, row: Row) -> Finding:
        name, lines = row.name, self._derived_lines
        repair = lines.get(f"{name}.g", "") or lines.get(f"{name.replace('.', '_')}.g", "")
        if row.status == "missing":
            cause = "missing-gradient"
            message = f"{name}.g is never set, but the loss depends on {name} {row.expected_shape}"
            if value in self.hand.stale:
                message = f"{name}.g {row.expected_shape} is left over from an earlier run; this run never sets it"
        elif row.status == "wrong shape":
            cause = "wrong-shape"
            message = f"{name}.g has shape {row.shape}, {name} has {row.expected_shape}"
        else:
            cause = "wrong-gradient"
            given = ", ".join(f"{self.names[u]}.g" for u in self.assigned.computed_from(value))
            after = f" given {given}" if given else ""
            size = f"off by up to {row.max_abs:.3g} ({row.max_rel:.2g} of its size)"
            message = f"{name}.g {row.shape} is wrong{after}: {size}"
        return Finding(name, row.line, cause, message, repair, False, row.file)


def _shape(value: fx.Node) -> tuple[int, ...]:
    return tuple(value.meta["val"].shape)
