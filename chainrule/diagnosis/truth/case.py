"""One run of a person's code with the truth beside it: every value, at the recorded inputs and at others."""

from __future__ import annotations

import math
from collections.abc import Iterable, KeysView
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.deriving import EVERYTHING, derivation
from chainrule.diagnosis.reading.aliases import give_nodes
from chainrule.diagnosis.reading.boundaries import handed_claims
from chainrule.diagnosis.reading.claim import Claim, names_meant
from chainrule.diagnosis.reading.claims import Claims
from chainrule.diagnosis.reading.handwritten import Handwritten
from chainrule.diagnosis.reading.made import take_as_inputs
from chainrule.diagnosis.truth import points
from chainrule.diagnosis.truth.convention import Convention
from chainrule.diagnosis.truth.guards import Guards
from chainrule.diagnosis.truth.kinks import may_jump
from chainrule.diagnosis.truth.rounding import rounding
from chainrule.diagnosis.truth.sizes import unequal
from chainrule.errors import ChainruleError, Site
from chainrule.program import differentiable
from chainrule.run import double, needed, run, step
from chainrule.show.names import keys

RIGHT = 1e-8  # in float64, relative to the largest element: what only rounding can explain
CLOSE = 200  # in the person's dtype, in units of its rounding error
SPREAD = 10  # how often the estimated rounding error a difference may be
_SAME = 100_000  # elements of what is compared bit for bit
NUDGE = 1e-4  # how far the inputs are moved to see whether an error exists only at a kink


class Point:
    """Every value of the graph for one choice of the inputs, in float64."""

    def __init__(self, case: Case, known: dict[fx.Node, Any]) -> None:
        self.case, self.base, self.known = case, case.base, known
        self.values: dict[fx.Node, Any] = dict(known)
        self._factors: dict[Convention, float] = {}
        with torch.no_grad():
            for node in case.graph.nodes:
                if node.op not in ("placeholder", "output") and node not in self.values:
                    if case.bare and (of := case.guards.added_to.get(node)) in self.values:
                        self.values[node] = self.values[of]
                        continue
                    try:
                        self.values[node] = step(node, self.values, double)
                    except (RuntimeError, ValueError, IndexError, KeyError, TypeError, ZeroDivisionError):
                        continue  # of other shapes than this choice has; what reads it has no value either

    def truth(self, value: fx.Node) -> torch.Tensor:
        """The right gradient; of a value on the way, by the person's convention."""
        truth, convention = self.bare_truth(value), self.case.convention
        if convention is None or not convention.holds_for(value):
            return truth
        if convention not in self._factors:
            self._factors[convention] = convention.factor(self.case, self)
        return self._factors[convention] * truth

    def bare_truth(self, value: fx.Node) -> torch.Tensor:
        """The right gradient as autograd has it."""
        gradient = self.base.gradients.get(value)
        if gradient is None:
            return torch.zeros_like(double(self.values.get(value, value.meta["val"])))
        return self.values[gradient]

    @cached_property
    def largest(self) -> float:
        """The largest number that is finite, of all values."""
        found = [v for v in self.values.values() if isinstance(v, torch.Tensor) and v.is_floating_point() and v.numel()]
        sizes = ((_largest(v), v) for v in found)
        return max((m if math.isfinite(m) else _largest(v.nan_to_num(0.0, 0.0, 0.0)) for m, v in sizes), default=0.0)

    @property
    def complete(self) -> bool:
        return all(g in self.values for g in self.base.gradients.values())


class Case:
    """A run, what it claims, and what is true."""

    def __init__(self, hand: Handwritten, bare: bool = False) -> None:
        """Where `bare`, the truth is that without what only keeps a logarithm or a quotient finite: `log(p + 1e-7)`."""
        self.bare = bare
        self.convention: Convention | None = None  # by which gradients on the way are a number times the right ones
        self.until = math.inf  # on the clock of chainrule.work, when no further cause or repair is looked for
        self.hand, self.recorder = hand, hand.recorder
        self.graph = hand.recorder.graph
        take_as_inputs(self.recorder, self._output(), (w.owner for w in hand.writes), self._meant())
        self.base = derivation(hand.recorder, hand.output, EVERYTHING, hand.upstream)._base
        self.forward = self._forward()
        give_nodes(self.graph, self.forward)
        names = keys(self.graph.nodes)
        self.names = {n: name for n, name in names.items() if n in self.forward or n.op == "placeholder"}
        self._claims = Claims(hand, self.names, self.forward, lambda: Point(self, self._inputs()).truth)
        self.claims = self._claims.explicit()
        self.unsaid, self.noted = self._claims.unsaid, self._claims.notes
        self.untouched = self._claims.untouched
        self.handed = handed_claims(self)  # before a point is computed: it may add nodes
        used = set(needed([self.base.output]))
        circular = [w.spot for w in hand.writes if w.node in used and w.node is not None and not _is_given(w.node)]
        circular += [c.spot for c in self.claims if c.spot is not None and _is_stepped(c, used)]
        if circular and not hand.began:
            raise ChainruleError(
                f"the loss of {hand.asked.name} is computed from a gradient that was set by hand, as in a loop of training "
                "steps; check one step, with the parameters as arguments",
                Site(circular[0].file, circular[0].line, hand.asked.name),
            )
        if not self.claims:
            raise ChainruleError(
                f"{hand.asked.name} left no .g on any tensor and returned no gradients; "
                "write the gradients as w.g = ..., return them, or give a model with backward()"
            )

    def _output(self) -> fx.Node:
        entry = self.recorder.entry(self.hand.output)
        assert entry is not None
        return entry.node

    def _meant(self) -> set[str]:
        """The names of which a name in the code says that it is the gradient."""
        labels = [n.meta.get("name") or "" for n in self.graph.nodes if n.meta.get("phase") == "forward"]
        return {m.casefold() for label in [*labels, *self.hand.labels()] for m in names_meant(label)}

    def _forward(self) -> KeysView[fx.Node]:
        """The nodes that are no part of the hand-written backward pass: a set in the order of the graph, as every set of
        nodes that is gone through has to be for one answer in every run."""
        found = set(needed([self.base.output])) | {n for n in self.graph.nodes if n.op == "placeholder"}
        began = self.hand.began
        if self.hand.asked.reference is not None:  # else what their forward makes for the backward alone is part of it
            found |= {n for n in self.graph.nodes if (s := n.meta.get("spot")) is not None and s.order < began}
        return dict.fromkeys(n for n in self.graph.nodes if n in found).keys()

    @cached_property
    def recomputed(self) -> dict[fx.Node, fx.Node]:
        """What the backward pass computes again of the forward pass, and as what: by the operation, and its numbers bit for
        bit."""
        values = {n: v for n, v in self.here.values.items() if isinstance(v, torch.Tensor) and 1 < v.numel() <= _SAME}
        told = {n: (n.meta["operation"], tuple(v.shape), v.cpu().numpy().tobytes()) for n, v in values.items()}
        before = {told[n]: n for n in values if n in self.forward and n in self.base.gradients}
        return {n: before[key] for n, key in told.items() if n not in self.forward and key in before}

    # -- points ----------------------------------------------------------------------------------

    def _inputs(self) -> dict[fx.Node, Any]:
        return {n: double(n.meta["val"]) for n in self.recorder.inputs}

    @cached_property
    def here(self) -> Point:
        return Point(self, self._inputs())

    @cached_property
    def nearby(self) -> Point:
        generator = torch.Generator().manual_seed(0)
        known = self._inputs()
        for node, value in known.items():
            if differentiable(node) and node is not self.base.upstream:
                size = value.abs() + 0.01
                known[node] = value + NUDGE * size * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        return Point(self, known)

    @cached_property
    def off_kinks(self) -> Point | None:
        """What is nearby, where the slope of the forward pass may jump, or is infinite here; None where it cannot be."""
        held = (self.here.values.get(c.node) for c in self.claims)
        finite = self._finite(self.here) and all(v is None or bool(torch.isfinite(v).all()) for v in held)
        return self.nearby if not finite or may_jump(n for n in self.graph.nodes if n in self.forward) else None

    @cached_property
    def guards(self) -> Guards:
        """The small numbers that only keep a logarithm or a quotient finite."""
        return Guards(self.forward)

    @cached_property
    def unguarded(self) -> Point | None:
        """The values without what only keeps a logarithm or a quotient finite; None where nothing does."""
        known = {node: self.here.values[of] for node, of in self.guards.added_to.items()}
        return Point(self, {**self._inputs(), **known}) if known else None

    @cached_property
    def elsewhere(self) -> list[Point]:
        """Other inputs of the same sizes."""
        return [p for seed in (1, 2) if (p := self._other(points.fresh(self._free(), seed))) is not None]

    @cached_property
    def resized(self) -> Point | None:
        """Inputs of other sizes, all unequal, where the program allows it: they tell the batch size from the width."""
        return self._other(self._unequal())

    def at(self, known: dict[fx.Node, Any]) -> Point | None:
        """Other values for some of the inputs; None where the program does not run for them."""
        return self._other(known)

    def _other(self, known: dict[fx.Node, Any] | None) -> Point | None:
        point = Point(self, {**self._inputs(), **known}) if known is not None else None
        return point if point is not None and point.complete and self._finite(point) else None

    def _free(self) -> dict[fx.Node, Any]:
        """The inputs that may be others; the gradient of a loss is one."""
        fixed = self.base.upstream if self.hand.upstream is None else None
        return {n: v for n, v in self._inputs().items() if isinstance(v, torch.Tensor) and n is not fixed}

    def _unequal(self) -> dict[fx.Node, Any] | None:
        if any(v.numel() > 100_000 for v in self._free().values()):
            return None
        guards = [g.node for g in self.base.guards]
        nodes = needed([*self.base.gradients.values(), self.base.output])
        tensors = {n: v for n, v in self._inputs().items() if isinstance(v, torch.Tensor)}
        try:
            found = unequal(nodes, tensors, 3, guards)
        except (RuntimeError, ValueError, KeyError, TypeError):
            return None
        return None if found is None else {n: v for n, v in found.items() if n in self._free()}

    def _finite(self, point: Point) -> bool:
        return all(bool(torch.isfinite(point.values[g]).all()) for g in self.base.gradients.values())

    # -- claims ----------------------------------------------------------------------------------

    @cached_property
    def guessed(self) -> list[Claim]:
        """Values on the way that are gradients by their names."""
        return self._claims.by_convention(self.claims)

    @cached_property
    def theirs(self) -> list[fx.Node]:
        """What the hand-written backward pass computes, in order."""
        nodes = (n for n in self.graph.nodes if n.meta["phase"] == "forward")
        return [n for n in nodes if n not in self.forward]

    def in_backward(self, node: fx.Node) -> bool:
        """Whether a node was computed since the backward pass began, where that is known."""
        spot = node.meta.get("spot")
        return spot is None or spot.order >= self.hand.began

    def tracked(self, claim: Claim) -> bool:
        """Whether a hand-written gradient was computed from what the loss was computed from."""
        used = set(needed([self.base.output]))
        given = self.recorder.entry(self.hand.upstream) if self.hand.upstream is not None else None
        if given is not None:
            used.add(given.node)
        return all(n in used or not differentiable(n) for n in needed([claim.node]) if n.op == "placeholder")

    def fed(self, claim: Claim, above: Iterable[Claim], point: Point) -> torch.Tensor | None:
        """What a line gives if the gradients that it reads are right; None where it cannot be run so."""
        return self.fed_values([claim.node], above, point).get(claim.node)

    def fed_values(
        self, nodes: list[fx.Node], above: Iterable[Claim], point: Point, bare: bool = False
    ) -> dict[fx.Node, Any]:
        """Every value on the way to `nodes`; none where they cannot be run so. A `bare` truth is autograd's."""
        truth = point.bare_truth if bare else point.truth
        swap = {c.node: truth(c.value) for c in above}
        if all(node in swap for node in nodes):
            return dict(swap)
        forward = {n: v for n, v in point.values.items() if n in self.forward}
        try:
            with torch.no_grad():
                return run(needed(nodes, given=[*swap, *forward]), {**forward, **swap}, double)
        except (RuntimeError, IndexError, ValueError, KeyError, TypeError):
            return {}

    def noise(self, nodes: list[fx.Node], point: Point, eps: float) -> dict[fx.Node, torch.Tensor]:
        """How large rounding errors may be, for each of `nodes`."""
        known = {n: point.values[n] for n in self.recorder.inputs}
        return rounding(needed(nodes), known, nodes, eps)


def _is_given(node: fx.Node) -> bool:
    """Whether a gradient is a value that was there before: an input, or another value under its own name."""
    return node.op == "placeholder" or node.meta.get("same_as") is not None


def _is_stepped(claim: Claim, used: set[fx.Node]) -> bool:
    """Whether the loss is computed from the value after a step along what the line of its gradient gave before."""
    steps = [u for u in claim.value.users if u in used and u.meta["operation"] in ("sub", "add")]
    before = [n for u in steps if u.args[0] is claim.value for n in needed([u])]
    return any(n is not claim.node and _same_line(n.meta.get("spot"), claim.spot) for n in before)


def _same_line(spot: Any, other: Any) -> bool:
    return spot is not None and other is not None and (spot.code, spot.index) == (other.code, other.index)


def errors(got: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """The largest difference, and that relative to the largest element; infinite where the shapes differ."""
    if got.shape != truth.shape:
        return float("inf"), float("inf")
    if not truth.numel():
        return 0.0, 0.0
    got, truth = got.detach(), truth.detach()
    difference, size = _largest(got - truth), _largest(truth)
    if not math.isfinite(difference) or not math.isfinite(size):
        if not torch.equal(torch.isfinite(got), torch.isfinite(truth)):
            return float("inf"), float("inf")
        difference = _largest((got - truth).nan_to_num(0.0))
        size = _largest(truth.nan_to_num(0.0, 0.0, 0.0))
    return difference, difference / size if size else (0.0 if not difference else float("inf"))


def _largest(value: torch.Tensor) -> float:
    """The largest absolute value, NaN if any is; in one pass where it can be."""
    if not value.dtype.is_floating_point:
        return float(value.abs().max())
    least, most = torch.aminmax(value)
    return max(-float(least), float(most)) if not math.isnan(float(most)) else math.nan


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """The inner product of two tensors as real vectors, complex elements as two numbers each."""
    return float((a * b.conj()).real.sum()) if b.is_complex() else float((a * b).sum())


def same(got: Any, truth: torch.Tensor, tolerance: float = RIGHT) -> bool:
    """Whether two values are equal but for rounding in float64."""
    if truth.dtype is torch.bool:
        return isinstance(got, torch.Tensor) and torch.equal(got, truth)
    return isinstance(got, torch.Tensor) and errors(got.to(truth.dtype), truth)[1] <= tolerance
