"""A right hand-written line beside the derived one: the nodes of both, and which of them have equal values."""

from __future__ import annotations

from collections.abc import Iterator, KeysView
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.truth import points
from chainrule.diagnosis.truth.case import Case, Point, same
from chainrule.run import double, needed, run

PRODUCTS = frozenset(("matmul", "mm", "bmm", "mv", "dot", "inner", "addmm", "addmv", "baddbmm", "addbmm"))
TRANSPOSES = frozenset(("T", "mT", "t", "transpose", "permute", "movedim", "swapaxes", "H", "mH"))
CASTS = frozenset(("to", "float", "double", "type_as", "type", "clone", "contiguous"))
MOVES = CASTS | {"view", "reshape", "flatten", "unsqueeze", "squeeze", "expand", "expand_as", "view_as"}
Found = tuple[str, fx.Node]  # an identity, and where the person uses it
ZERO = 1e-10  # relative to the size of the summands: what is left of terms that cancel


class Points:
    """The recorded inputs, and one other choice of them that is drawn when first asked for."""

    def __init__(self, case: Case) -> None:
        self.case = case
        given = case.recorder.entry(case.hand.upstream) if case.hand.upstream is not None else None
        self.given = given.node if given is not None else None
        self._sums: dict[fx.Node, tuple[int, float] | None] = {}
        self._weights: dict[int, torch.Tensor] = {}

    @cached_property
    def here(self) -> Point:
        if self.given is None or self.given.op == "placeholder":
            return self.case.here
        return self._point({})  # the upstream gradient was made by a recorded operation, not rounded in float64

    @cached_property
    def elsewhere(self) -> Point:
        case = self.case
        fixed = {case.base.upstream, *(needed([self.given]) if self.given is not None else ())}
        inputs = {n: double(n.meta["val"]) for n in case.recorder.inputs}
        free = {n: v for n, v in inputs.items() if isinstance(v, torch.Tensor) and n not in fixed}
        point = self._point(points.fresh(free, 1))
        whole = point.complete and all(bool(torch.isfinite(point.truth(c.value)).all()) for c in case.claims)
        return point if whole else case.nearby

    def _point(self, other: dict[fx.Node, Any]) -> Point:
        case = self.case
        known = {n: double(n.meta["val"]) for n in case.recorder.inputs} | other
        if self.given is not None and case.base.upstream is not None:
            known[case.base.upstream] = run(needed([self.given]), known, double)[self.given]
        return Point(case, known)

    def all(self) -> tuple[Point, Point]:
        return self.here, self.elsewhere

    def sketch(self, node: fx.Node) -> tuple[int, float] | None:
        """A number that tells values apart, whatever their shapes; None for what is no tensor of real numbers."""
        if node not in self._sums:
            self._sums[node] = self._sketch(self.here.values.get(node))
        return self._sums[node]

    def _sketch(self, value: Any) -> tuple[int, float] | None:
        if not isinstance(value, torch.Tensor) or value.dtype.is_complex or not value.numel():
            return None
        size = value.numel()
        if size not in self._weights:
            self._weights[size] = torch.arange(1, size + 1, dtype=torch.float64).sin()
        return size, float(self._weights[size] @ value.detach().reshape(-1).double())

    def equal(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether two nodes have the same numbers in the same order, at every point."""
        if a is b:
            return True
        first, second = self.sketch(a), self.sketch(b)
        if first is None or second is None or first[0] != second[0]:
            return False
        if not abs(first[1] - second[1]) <= 1e-8 * max(abs(first[1]), abs(second[1])):
            return False
        return all(self._same(p.values.get(a), p.values.get(b)) for p in self.all())

    @staticmethod
    def _same(a: Any, b: Any) -> bool:
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.numel() != b.numel():
            return False
        return same(a.reshape(-1), b.reshape(-1).to(a.dtype))


class Forms:
    """One claim: how the person computes it, and how the derived pass does, from the same gradients above."""

    def __init__(self, claim: Claim, known: list[Claim], points: Points) -> None:
        case = points.case
        self.claim, self.points, self.case = claim, points, case
        self.gradient = case.base.gradients[claim.value]
        others = [c for c in known if c.node is not claim.node]
        leaves = {c.node for c in others}
        self.mine = [n for n in needed([claim.node], given=leaves | case.forward) if n not in case.forward | leaves]
        stops = {case.base.gradients.get(c.value) for c in others} - {None, self.gradient}
        stops |= case.forward
        self.theirs = [n for n in needed([self.gradient], given=stops) if n not in stops]  # type: ignore[arg-type]
        self.above = [c for c in others if any(c.node in n.all_input_nodes for n in self.mine)]

    @cached_property
    def mine_operations(self) -> set[str]:
        return {operation(n) for n in self.mine}

    @cached_property
    def their_operations(self) -> set[str]:
        return {operation(n) for n in self.theirs}

    def mine_with(self, *operations: str) -> Iterator[fx.Node]:
        return (n for n in self.mine if operation(n) in operations)

    def theirs_with(self, *operations: str) -> Iterator[fx.Node]:
        return (n for n in self.theirs if operation(n) in operations)

    def match(self, node: fx.Node, *operations: str) -> fx.Node | None:
        """The node of the derived line, of one of these operations, that has the value of the person's `node`."""
        return next((d for d in self.theirs_with(*operations) if self.points.equal(node, d)), None)

    @cached_property
    def read_by_me(self) -> KeysView[fx.Node]:
        return self._read_by(self.mine)

    @cached_property
    def read_by_them(self) -> KeysView[fx.Node]:
        return self._read_by(self.theirs)

    def _read_by(self, nodes: list[fx.Node]) -> KeysView[fx.Node]:
        read = (r for n in nodes if operation(n) != "shape" for r in n.all_input_nodes if r in self.case.forward)
        return dict.fromkeys(read).keys()

    def has_value(self, node: fx.Node) -> bool:
        """Whether the person's line computes, or reads, the value of `node`."""
        read = {r for n in self.mine for r in n.all_input_nodes}
        return any(self.points.equal(node, n) for n in {*self.mine, *read})


def operation(node: Any) -> str:
    return str(node.meta.get("operation", "")) if isinstance(node, fx.Node) else ""


def peeled(node: Any, through: frozenset[str] = MOVES) -> Any:
    """What a value was before it was only cast or put into another shape."""
    while isinstance(node, fx.Node) and node.args:
        keeps = operation(node) in through or (operation(node) == "getitem" and through is MOVES and _adds_axes(node))
        if not keeps:
            return node
        node = node.args[0]
    return node


def _adds_axes(node: fx.Node) -> bool:
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    return all(i is None or i is Ellipsis or i == slice(None) for i in index if not isinstance(i, fx.Node)) and not any(
        isinstance(i, fx.Node) for i in index
    )


def factors(node: Any) -> list[Any]:
    """What is multiplied in a tree of `*`, `/` and unary `-`; a square counts twice. Divisors are left out."""
    name = operation(node)
    if name in ("mul", "multiply") and len(node.args) == 2:
        return [*factors(node.args[0]), *factors(node.args[1])]
    if name in ("div", "true_divide", "neg") or name in MOVES:
        return factors(node.args[0])
    if name == "square" or (name == "pow" and len(node.args) > 1 and node.args[1] == 2):
        return [*factors(node.args[0]), *factors(node.args[0])]
    return [node]


def is_number(value: Any) -> bool:
    """Whether a value is a number for all elements: a literal, a size, a tensor of one element."""
    if isinstance(value, fx.Node):
        value = value.meta.get("val")
    return isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)
