"""Compares hand-written gradients with the truth, and finds the lines that are wrong by themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from chainrule.backward import differentiable
from chainrule.checking.handwritten import Handwritten, run_handwritten
from chainrule.checking.report import Finding, Report, Row
from chainrule.derivation import Derivation
from chainrule.deriving import EVERYTHING, derivation
from chainrule.errors import ChainruleError
from chainrule.run import double, needed, run
from chainrule.show.layout import Layout
from chainrule.show.names import keys
from chainrule.simplify import simplify

RIGHT = 1e-8  # in float64, relative to the largest element: what only rounding can explain
CLOSE = 200  # in the person's dtype, in units of its rounding error


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
        from chainrule.checking.functions import check_functions

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
        self.d: Derivation = derivation(hand.recorder, hand.output, EVERYTHING, hand.upstream)
        self.base = self.d._base
        self.nodes: dict[fx.Node, fx.Node] = {}  # forward value -> node of the hand-written gradient
        for value, g in hand.gradients.items():
            entry = hand.recorder.entry(g)
            self.nodes[value] = entry.node if entry is not None else hand.recorder.leaf(g, name="g")
        names = keys(hand.recorder.graph.nodes)
        self.names = {v: names.get(v) or v.name for v in self.nodes}
        self.exact = self._in_double()
        self.lines = self._derived_lines()

    def _derived_lines(self) -> dict[str, str]:
        """The derived backward lines by target, for the inputs whose gradients the person writes."""
        names = {self.names[v] for v in self.nodes} | {self._name(v) for v in self._missing()}
        program = self.base.seeded(explicit=self.hand.upstream is not None)
        program.wanted = [n for n in program.wanted if n.meta["name"] in names] or program.wanted
        simplify(program)
        return {line.target: line.text for line in Layout(program, dotted=True).part("backward")}

    def report(self) -> Report:
        rows, findings = [], []
        wrong: set[fx.Node] = set()
        for value in self._in_order():
            row = self._row(value)
            rows.append(row)
            if row.status not in ("right", "close"):
                wrong.add(value)
                if self._wrong_by_itself(value, wrong):
                    findings.append(self._finding(value, row))
        for value in self._missing():
            row = Row(self._name(value), "missing", None, None, None, _shape(value), None)
            rows.append(row)
            findings.append(self._finding(value, row))
        return Report(rows, findings)

    def _in_order(self) -> list[fx.Node]:
        """The values in the order in which their gradients were written."""
        position = {node: i for i, node in enumerate(self.hand.recorder.graph.nodes)}
        return sorted(self.nodes, key=lambda v: position[self.nodes[v]])

    def _in_double(self) -> dict[fx.Node, Any]:
        roots = [*self.nodes.values(), *self.base.gradients.values(), self.base.output]
        known = {n: double(n.meta["val"]) for n in self.hand.recorder.inputs}
        with torch.no_grad():
            return run(needed(roots), known, double)

    def _truth(self, value: fx.Node) -> torch.Tensor:
        gradient = self.base.gradients.get(value)
        return (
            self.exact[gradient] if gradient is not None else torch.zeros_like(self.exact.get(value, value.meta["val"]))
        )

    def _row(self, value: fx.Node) -> Row:
        g, truth, node = self.hand.gradients[value], self._truth(value), self.nodes[value]
        site = node.meta.get("site")
        place = (site.line, site.file) if site else (None, None)
        if tuple(g.shape) != _shape(value):
            return Row(self.names[value], "wrong shape", None, None, tuple(g.shape), _shape(value), *place)
        error, relative = _errors(self.exact[node], truth)
        status = "right" if relative <= RIGHT else "wrong"
        if status == "right" or not self._tracked(node):
            # by the person's own numbers: rounding of their dtype, or a path that could not be recorded
            own_error, own = _errors(g.double(), truth)
            limit = CLOSE * torch.finfo(g.dtype).eps if g.dtype.is_floating_point else 0.0
            status = "right" if own <= limit else "close" if status == "right" else "wrong"
            error, relative = own_error, own
        return Row(self.names[value], status, error, relative, tuple(g.shape), _shape(value), *place)

    def _tracked(self, node: fx.Node) -> bool:
        """Whether a hand-written gradient was computed from what the loss was computed from."""
        used = set(needed([self.base.output]))
        return all(n in used or not differentiable(n) for n in needed([node]) if n.op == "placeholder")

    def _wrong_by_itself(self, value: fx.Node, wrong: set[fx.Node]) -> bool:
        """Whether the line is wrong given the gradients that it was computed from."""
        above = self._computed_from(value)
        swap = {self.base.gradients[u]: self.exact[self.nodes[u]] for u in above if u in self.base.gradients}
        gradient = self.base.gradients.get(value)
        if gradient is None:
            return True
        if not swap or not any(u in wrong for u in above):
            return True
        forward = {n: v for n, v in self.exact.items() if n.meta["phase"] == "forward"}
        try:
            with torch.no_grad():
                values = run(needed([gradient], given=swap), {**forward, **swap}, double)
        except (RuntimeError, IndexError, ValueError):
            return False  # what it was computed from has a shape that no line could use
        expected, got = values[gradient], self.exact[self.nodes[value]]
        return expected.shape != got.shape or _errors(got, expected)[1] > RIGHT

    def _computed_from(self, value: fx.Node) -> list[fx.Node]:
        """The values whose hand-written gradients this one reads, nearest only."""
        others = {node: v for v, node in self.nodes.items() if v is not value}
        found, seen, stack = [], set(), list(self.nodes[value].all_input_nodes)
        if self.nodes[value] in others:  # `b.g = out.g`: the same tensor
            return [others[self.nodes[value]]]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in others:
                found.append(others[node])
            else:
                stack.extend(node.all_input_nodes)
        return found

    def _missing(self) -> list[fx.Node]:
        """Inputs that should have a gradient: they require one, or stand where others have theirs."""
        roles = {role for value in self.nodes if value.op == "placeholder" for role in self._roles(value)}
        inputs = [n for n in self.base.inputs if n in self.base.gradients and n not in self.nodes]
        inputs = [n for n in inputs if n.meta["operation"] == "input" and differentiable(n)]
        asked = [n for n in inputs if n.meta.get("given", n.meta["val"]).requires_grad]
        alike = [n for n in inputs if n not in asked and roles & set(self._roles(n))]
        return [*asked, *alike]

    def _roles(self, value: fx.Node) -> list[tuple[str, int]]:
        """As what the value enters the forward pass: the second operand of a matmul, say."""
        used = set(needed([self.base.output]))
        readers = [u for u in value.users if u in used and u.meta["phase"] == "forward"]
        return [(u.meta["operation"], i) for u in readers for i, a in enumerate(u.args) if a is value and i > 0]

    def _name(self, value: fx.Node) -> str:
        return str(value.meta.get("name") or value.name)

    def _finding(self, value: fx.Node, row: Row) -> Finding:
        name = row.name
        repair = self.lines.get(f"{name}.g", "") or self.lines.get(f"{name.replace('.', '_')}.g", "")
        if row.status == "missing":
            cause, message = (
                "missing-gradient",
                f"{name}.g is never set, but the loss depends on {name} {row.expected_shape}",
            )
        elif row.status == "wrong shape":
            cause = "wrong-shape"
            message = f"{name}.g has shape {row.shape}, {name} has {row.expected_shape}"
        else:
            cause = "wrong-gradient"
            given = ", ".join(f"{self.names[u]}.g" for u in self._computed_from(value))
            after = f" given {given}" if given else ""
            message = (
                f"{name}.g {row.shape} is wrong{after}: off by up to {row.max_abs:.3g} ({row.max_rel:.2g} of its size)"
            )
        return Finding(name, row.line, cause, message, repair, False, row.file)


def _shape(value: fx.Node) -> tuple[int, ...]:
    return tuple(value.meta["val"].shape)


def _errors(got: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """The largest difference, and that relative to the largest element."""
    if not truth.numel():
        return 0.0, 0.0
    if not torch.equal(torch.isfinite(got), torch.isfinite(truth)):
        return float("inf"), float("inf")
    got, truth = got.detach(), truth.detach()
    difference = float((got - truth).nan_to_num(0.0).abs().max())
    size = float(truth.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return difference, difference / size if size else (0.0 if not difference else float("inf"))
