"""From a wrong gradient to its cause: the small change that explains the person's numbers, and the one that mends them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis import jacobians, wraps
from chainrule.diagnosis.case import RIGHT, Case, Point, same
from chainrule.diagnosis.exchanges import is_mask
from chainrule.diagnosis.factors import other_factor
from chainrule.diagnosis.history import of_history
from chainrule.diagnosis.likelihood import compare_locals
from chainrule.diagnosis.locate import Located, Wrong
from chainrule.diagnosis.mutation import DROPPED, WRAPPED, Around, Mutation, Names
from chainrule.diagnosis.paths import lost_from
from chainrule.diagnosis.search import FAILURES, Search, Trial
from chainrule.diagnosis.sketch import Sketches, is_tensor
from chainrule.diagnosis.spelling import Reach
from chainrule.diagnosis.suspects import suspects
from chainrule.diagnosis.terms import combined, several_lost
from chainrule.run import double, needed, run

_FAR = WRAPPED + 1.25  # a change that is no more likely than what the numbers say
_NAMES = 40  # tensors in reach that are tried in the place of another
_SECONDS = 3.5  # of work on the person's own line

# What a scale may look like, where the numbers are the right ones times a constant.
_ALSO_SCALES = frozenset(
    ("wrong-factor", "wrong-term-scale", "double-applied", "wrong-tensor", "missing-factor", "wrong-exponent")
)


# Something stands where another thing should; what is missing, or there too often, says more of a right line.
_CHANGES = frozenset(("wrong-factor", "wrong-tensor", "wrong-exponent", "wrong-mask", "wrong-axis"))
_RATHER = frozenset(
    (("wrong-term-scale", "wrong-scale"), ("wrong-term-scale", "sign"), ("missing-factor", "wrong-exponent"))
)


@dataclass
class Diagnosis:
    """What is wrong with one line, and the changes to it that give the right numbers."""

    cause: str
    repairs: list[Mutation] = field(default_factory=list)  # of the person's own code, nearest first
    also: tuple[str, ...] = ()
    ratio: float | None = None  # the person's numbers divided by the right ones, where that is one number
    said: str = ""  # what the ratio equals
    told_by: str = "fact"  # the cause: a fact, the nearest "repair", how the right line was "made" wrong, or "numbers"

    def with_repair(self, cause: str | None, weight: float) -> tuple[str, tuple[str, ...]]:
        """The cause, and others that fit as well, where a change that `cause` tells of has been proved.

        It says more than other changes and than the numbers; what was done to the right line says more than a change
        that is far from the person's."""
        if (self.cause, cause) in _RATHER:  # what was found in the line says more than what the right one lacks
            return str(cause), self.also
        scales = cause in ("wrong-scale", "wrong-term-scale") and self.cause in _ALSO_SCALES
        far = weight >= WRAPPED + 1 or (weight >= WRAPPED and cause not in _CHANGES)
        made = self.told_by == "made" and far and not scales and self.cause not in _CHANGES
        if cause in (None, self.cause) or (self.cause != "unknown" and (self.told_by == "fact" or made)):
            return self.cause, self.also
        assert cause is not None
        others = dict.fromkeys(c for c in (self.cause, *self.also) if c not in (cause, "unknown"))
        return cause, tuple(others)[:2]


class Diagnoser:
    """Looks for the cause of one wrong claim."""

    def __init__(self, case: Case, located: Located, wrong: Wrong) -> None:
        self.case, self.claim, self.above = case, wrong.claim, wrong.above
        self.sketches = Sketches(case.graph)
        self.mine = wrong.mine
        self._reached: dict[int, Names] = {}  # by the names of a spot
        self.others = [c for c in located.known if c.node is not self.claim.node]

    @cached_property
    def reach(self) -> Reach:
        assert self.claim.spot is not None
        return Reach(self.claim.spot, self.case.recorder)

    def diagnosis(self) -> Diagnosis:
        ratio = self._ratio()
        repairs = self._repairs() if self.claim.spot is not None else []
        made = [] if repairs and repairs[0].weight < DROPPED + 0.5 else self._made()
        dropped = not self._reads_gradients and self._needs_gradients
        ranked = [(m.weight + 0.05, m.makes, "made") for m in made if m.makes != "upstream-dropped" or dropped]
        ranked = [*((m.weight + 0.5 * m.strange, m.repairs, "repair") for m in repairs), *ranked]
        ranked = sorted(ranked, key=lambda r: (r[0], not (dropped and r[1] == "upstream-dropped"), r[1]))
        if repairs and repairs[0].repairs in ("wrong-scale", "wrong-term-scale"):  # nothing is added there
            ranked = [r for r in ranked if r[1] != "double-counted-path"]
        told_by = {cause: by for _, cause, by in reversed(ranked)}
        causes = [cause for weight, cause, _ in ranked if weight <= ranked[0][0] + 0.5]
        if not ranked or ranked[0][0] > _FAR:
            factor = self._other_factor()
            causes[:0] = numbers = [factor] if factor else self._by_elements()
            told_by |= dict.fromkeys(numbers, "fact" if factor else "numbers")
        facts: list[str] = []
        if ratio is not None and (not causes or causes[0] in _ALSO_SCALES):
            facts = ["sign" if abs(ratio + 1) < 1e-9 else "wrong-scale"]
        if self.claim.tensor.shape != self.claim.value.meta["val"].shape and not causes:
            facts = ["wrong-shape"]
        first = ("wrong-scale", "sign") if ratio is not None else ("lost-path", "missing-term")  # which say it all
        says_all = bool(causes) and causes[0] in first and (ratio is not None or self._is_any)
        without = [] if repairs and repairs[0].weight < 1 else self._without_gradients()
        facts += without if facts or not says_all else []
        if not self.claim.tensor.ndim and self.claim.value.meta["val"].ndim:
            facts.insert(0, "wrong-shape")
        if self._only_ties():
            facts.insert(0, "ties")
        causes = list(dict.fromkeys([*facts, *causes])) or ["unknown"]
        event = bool(repairs) and repairs[0].weight < 1  # of the run
        by = "fact" if facts or event else told_by.get(causes[0], "fact")
        return Diagnosis(causes[0], repairs, tuple(causes[1:3]), ratio, self._said(ratio), by)

    def _other_factor(self) -> str:
        """The cause, where one factor stands in the place of another, or none does."""
        trial = self._trial(self.case.here)
        values = trial.values if trial is not None else {}
        upstream = [n for n in [self.case.base.upstream] if n is not None]
        carried = [*(c.node for c in self.above), *upstream]
        carried += [n for n in self.mine if n in self._carrying(self.mine, carried)]
        return other_factor(self.mine, self.right, carried, values)

    @property
    def _is_any(self) -> bool:
        """Whether the line gives anything but zeros."""
        fed = self._fed(self.case.here)
        return fed is None or bool(fed.any())

    @property
    def _needs_gradients(self) -> bool:
        """Whether a gradient that the person has should enter the line: not into that of the loss."""
        later = self._readers(self.claim.value)
        return self.case.hand.upstream is not None or any(c.value in later for c in self.others)

    @cached_property
    def _reads_gradients(self) -> bool:
        """Whether the person's numbers are others when the gradients from above are: shapes alone do not count."""
        case, point = self.case, self.case.here
        sources = {c.node: point.truth(c.value) for c in self.above}
        if case.hand.upstream is not None and case.base.upstream is not None:
            sources[case.base.upstream] = point.values[case.base.upstream]
        known = {n: v for n, v in point.values.items() if n in case.forward} | sources
        generator = torch.Generator().manual_seed(4321)  # other numbers than the upstream gradient has
        moved = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in sources.items()}
        try:
            with torch.no_grad():
                before, after = (run(self.mine, values, double) for values in (known, {**known, **moved}))
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
            return True
        if self.claim.node in sources or self.claim.node not in before:
            return True
        return not torch.equal(before[self.claim.node], after[self.claim.node])

    def _only_ties(self) -> bool:
        """Whether the line is right where no two elements are equal."""
        near = self._fed(self.case.nearby)
        return near is not None and same(near, self.case.nearby.truth(self.claim.value))

    def _without_gradients(self) -> list[str]:
        """The cause, where no gradient enters the line although others are known that should."""
        if not self._is_any:
            return ["missing-gradient"]
        gradient = self.case.base.gradients.get(self.claim.value)
        if self._reads_gradients or gradient is None:
            return []
        read = set(needed([gradient]))
        of_others = {self.case.base.gradients.get(c.value) for c in self.others if c.explicit} - {gradient, None}
        known = bool(of_others & read) or (self.case.hand.upstream is not None and self.case.base.upstream in read)
        return ["upstream-dropped"] if known else []

    def _by_elements(self) -> list[str]:
        """What the numbers alone say, where no near change explains them."""
        sources = {n: self.case.here.values[n] for n in self._given_above}
        generator = torch.Generator().manual_seed(4321)
        moved = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in sources.items()}
        pairs = [self._with_gradients(given) for given in (sources, moved)]
        shapes = [getattr(v, "shape", None) for pair in pairs for v in pair]
        if not sources or None in shapes or len(set(shapes)) > 1:
            return [cause] if (cause := self._other_factor()) else []
        if all(bool(((mine == 0) | (right == 0) | _equal(mine, right)).all()) for mine, right in pairs):
            masked = any(is_tensor(n) and is_mask(n) for n in self.mine)
            return ["wrong-mask" if masked else "missing-factor"]
        (mine, right), (mine_then, right_then) = pairs  # one factor in the place of another, whatever it is times
        cause = self._other_factor()
        return [cause] if cause else ["wrong-factor"] if same(mine * right_then, mine_then * right) else []

    def _with_gradients(self, given: dict[fx.Node, torch.Tensor]) -> tuple[Any, Any]:
        """The person's gradient and the right one, from other gradients above."""
        gradient = self.case.base.gradients.get(self.claim.value)
        theirs = {c.node: given[g] for c in self.above if (g := self.case.base.gradients.get(c.value)) in given}
        known = {n: v for n, v in self.case.here.values.items() if n in self.case.forward} | given | theirs
        try:
            with torch.no_grad():
                right, mine = run(self.right, known, double), run(self.mine, known, double)
        except FAILURES:
            return None, None
        return mine.get(self.claim.node), right.get(gradient) if gradient is not None else None

    def _said(self, ratio: float | None) -> str:
        if ratio is None or self.claim.spot is None:
            return ""
        values = self.case.here.values
        search = Search([], self.claim.node, [], Around(self.sketches, self._names()))
        with self.sketches.kept_only_if():
            return search.scales.said(ratio, values, self.reach.names)

    def _ratio(self) -> float | None:
        """The person's numbers over the right ones, where that is the same number everywhere."""
        fed, truth = self._fed(self.case.here), self.case.here.truth(self.claim.value)
        if fed is None or fed.shape != truth.shape or not bool(truth.any()):
            return None
        ratio = float((fed * truth).sum() / (truth * truth).sum())
        if not ratio or not same(fed, truth * ratio):
            return None
        for point in self._points[1:2]:  # a number, not a value that happens to be the same everywhere
            fed, truth = self._fed(point), point.truth(self.claim.value)
            if fed is not None and fed.shape == truth.shape and not same(fed, truth * ratio):
                return None
        return ratio

    # -- the person's own code, changed ------------------------------------------------------------

    def _repairs(self) -> list[Mutation]:
        trials = [t for p in self._points if (t := self._trial(p)) is not None]
        if not trials:
            return []
        upstream = [n for n in [self.case.base.upstream] if n is not None]
        carries = self._carrying(self.mine, [c.node for c in self.above] + upstream)
        gradients = self._carrying(self.case.theirs, [c.node for c in self.others] + upstream)
        gradients |= set(self.case.base.gradients.values())
        divisors = {n.args[1] for n in self.right if n.meta["operation"] == "div" and isinstance(n.args[1], fx.Node)}
        around = Around(self.sketches, self._names(), carries, gradients, divisors)
        around.numbers, around.at, around.until = self.reach.numbers, self._names_at, self.case.until
        resized = self._trial(self._resized) if self._resized is not None else None
        search = Search(self.mine, self.claim.node, trials, around, self._factors(), resized, self._beside, _SECONDS)
        search.try_all(of_history(self.case, self.claim, self.mine, self.sketches))
        search.run(suspects(self.case, self.mine, carries, trials[0].values))
        search.try_all(self._skips())
        if not any(m.weight < WRAPPED + 1 for m in search.best):
            search.try_all(self._terms())
            search.try_all(wraps.regularisers(search))
            search.try_all(wraps.products(search))
        compare_locals(self.case, self.mine, search, self.right, self._given_above)
        return search.best

    def _skips(self) -> Iterator[Mutation]:
        """Several operations left out at once: `p - y` times p (1 - p) again."""
        value = self.case.here.values.get(self.claim.node)
        node = self.claim.node
        for before in self.mine:
            held = self.case.here.values.get(before)
            near = before in node.all_input_nodes
            if before is not node and not near and getattr(held, "shape", None) == getattr(value, "shape", ()):
                yield Mutation(node, before, "double-applied", DROPPED + 0.2)

    def _terms(self) -> Iterator[Mutation]:
        """A path or a term of the right gradient, added to the person's."""
        gradient = self.case.base.gradients.get(self.claim.value)
        for node in self.right if gradient is not None else ():
            if node.meta["operation"] in ("add", "sub") and len(node.args) == 2:
                cause = lost_from([node])
                for place, operand in enumerate(node.args):
                    held = self.case.here.values.get(operand) if isinstance(operand, fx.Node) else None
                    if isinstance(held, torch.Tensor) and held.shape == self.claim.value.meta["val"].shape:
                        minus = node.meta["operation"] == "sub" and place == 1
                        by = self.sketches.operation("sub" if minus else "add", self.claim.node, operand)
                        yield Mutation(self.claim.node, by, cause, WRAPPED + 2)

    def _names(self) -> dict[fx.Node, str]:
        """The tensors that this line can name, and that are no later than it."""
        return self._named(self.reach).of

    def _names_at(self, node: fx.Node) -> Names | None:
        """The same for the line on which a value on the way was computed: another turn of a loop, another layer."""
        spot = node.meta.get("spot")
        if spot is None or node.meta["phase"] == "sketch":
            return None
        if id(spot.names) not in self._reached:
            self._reached[id(spot.names)] = self._named(Reach(spot, self.case.recorder))
        return self._reached[id(spot.names)]

    def _named(self, reach: Reach) -> Names:
        known = self.case.here.values
        found = {n: text for n, text in reach.names.items() if is_tensor(n) and n in known and n not in self._later}
        for node, text in list(found.items()):  # what goes by the name of a copy of it
            if found.get(node.meta.get("same_as", node)) == text and "same_as" in node.meta:
                del found[node.meta["same_as"]]
        plain = sorted(found.items(), key=lambda named: named[1].count("[") + named[1].count("."))
        return Names(dict(plain[:_NAMES]), reach.nodes, reach.integers)

    @cached_property
    def _later(self) -> set[fx.Node]:
        return {self.claim.node, *self._readers(self.claim.node)}

    def _readers(self, node: fx.Node) -> set[fx.Node]:
        found, stack = set(), [node]
        while stack:
            for user in stack.pop().users:
                if user not in found and user.meta.get("phase") == "forward":
                    found.add(user)
                    stack.append(user)
        return found

    def _factors(self) -> list[fx.Node]:
        """What the right gradient is multiplied by: its own nodes that do not depend on the gradients above."""
        moved = self._carrying(self.right, self._given_above)
        found = [n for n in self.right if n not in moved and is_tensor(n)]
        factors = [a for n in self.right if n in moved and n.meta["operation"] in ("mul", "div") for a in n.args]
        found += [a for a in dict.fromkeys(factors) if is_tensor(a) and a not in moved and a not in found]  # type: ignore[misc]
        last: dict[fx.Node, fx.Node] = {}  # the factor that a product ends with
        for node in self.right:
            if node.meta["operation"] != "mul" or node not in moved:
                continue
            carried, factor = node.args if node.args[0] in moved else node.args[::-1]
            if isinstance(carried, fx.Node) and is_tensor(factor) and factor not in moved:
                last[node] = factor  # type: ignore[assignment]
                if carried in last:  # p * (1 - p), which is no value of its own
                    found.append(self.sketches.operation("mul", last[carried], factor))
        return found

    # -- the right gradient, changed ---------------------------------------------------------------

    @cached_property
    def _given_above(self) -> list[fx.Node]:
        gradients = self.case.base.gradients
        found = [gradients[c.value] for c in self.above if c.value in gradients]
        return found or [n for n in [self.case.base.upstream] if n is not None]

    @cached_property
    def right(self) -> list[fx.Node]:
        """The nodes of the right gradient, from the gradients that the person's line reads."""
        gradient = self.case.base.gradients.get(self.claim.value)
        if gradient is None:
            return []
        closed = {n for n in self.case.graph.nodes if n.meta["phase"] == "forward"} | set(self._given_above)
        return [n for n in needed([gradient], given=closed) if n not in closed]

    def _made(self) -> list[Mutation]:
        """Changes to the right gradient that give the person's numbers."""
        gradient = self.case.base.gradients.get(self.claim.value)
        trials = []
        for point in self._points:
            fed = self._fed(point)
            if fed is not None and fed.numel():
                trials.append(Trial(point.values, fed))
        if gradient is None or not trials:
            return []
        names = {n: t for n, t in self.case.names.items() if n in self.case.forward and is_tensor(n)}
        carries, gradients = self._carrying(self.right, self._given_above), set(self.case.base.gradients.values())
        around = Around(self.sketches, names, carries, gradients, until=self.case.until)
        search = Search(self.right, gradient, trials, around)
        search.run()
        search.try_all(self._without_upstream())
        found = combined(search, trials)
        search.try_all(self._shorter(search))
        if not found and not search.best:
            search.try_all(several_lost(search))
        found += jacobians.mistaken(search, self._given_above, self.claim.value)
        return sorted([*search.best, *found], key=lambda m: m.weight)

    def _shorter(self, search: Search) -> Iterator[Mutation]:
        """The gradient as it was before several operations of the derivative: the mask and the scale of a dropout."""
        root = search.root
        sums = [n for n in search.nodes if n.meta["operation"] in ("add", "sub", "sum")]
        summed = set(needed(sums))  # what is a term, or part of one
        for before in [*search.nodes, *self._given_above]:
            value = self.case.here.values.get(before)
            same_shape = getattr(value, "shape", None) == self.case.here.values[root].shape
            if before is not root and isinstance(value, torch.Tensor) and same_shape and before not in summed:
                yield Mutation(root, before, "missing-factor", DROPPED + 0.1, "missing-factor")

    def _without_upstream(self) -> Iterator[Mutation]:
        for node in self._given_above:
            yield Mutation(node, self.sketches.method("new_ones", node, self.sketches.attribute(node, "shape")),
                           "upstream-dropped", DROPPED)  # fmt: skip

    # -- values ------------------------------------------------------------------------------------

    @cached_property
    def _points(self) -> list[Point]:
        return [self.case.here, *(self.case.elsewhere if self.case.tracked(self.claim) else [])]

    @cached_property
    def _resized(self) -> Point | None:
        """Other sizes, unless lines that are right go wrong there: `len(x)` leaves a number that nobody can change."""
        point = self.case.resized if self.case.tracked(self.claim) else None
        if point is None:
            return None
        right = [c for c in self.case.claims if same(self.case.here.values.get(c.node), self.case.here.truth(c.value))]
        return point if all(same(point.values.get(c.node), point.truth(c.value)) for c in right) else None

    def _fed(self, point: Point) -> torch.Tensor | None:
        return self.case.fed(self.claim, self.above, point)

    def _trial(self, point: Point) -> Trial | None:
        """The values at a point, with the right gradients for every other claim, and what this one should be."""
        values = dict(point.values)
        for other in self.others:
            values[other.node] = point.truth(other.value)
        try:
            with torch.no_grad():
                for node in self._theirs:
                    values.pop(node, None)
                values = run(self._theirs, values, double)
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
            for node in self._theirs:
                values.pop(node, None)
        return Trial(values, point.truth(self.claim.value))

    @cached_property
    def _theirs(self) -> list[fx.Node]:
        """What the person computed until this line, from the gradients that are known too."""
        known, found = {c.node for c in self.others}, []
        for node in self.case.graph.nodes:
            if node.meta.get("spot") is not None and node.op != "placeholder" and node not in self.case.forward | known:
                found.append(node)
            if node is self.claim.node:
                break
        return found

    @cached_property
    def _beside(self) -> list[fx.Node]:
        """The nodes of the line, and those that were computed from them before it: what a loop carries on, unread."""
        mine, known = set(self.mine), {c.node for c in self.others}
        found: list[fx.Node] = []
        for node in self.case.graph.nodes:
            theirs = node.meta.get("spot") is not None and node not in self.case.forward and node not in known
            if node in mine or (theirs and not mine.isdisjoint(node.all_input_nodes)):
                mine.add(node)
                found.append(node)
            if node is self.claim.node:
                break
        return found

    def _carrying(self, nodes: list[fx.Node], sources: list[fx.Node]) -> set[fx.Node]:
        moved = set(sources)
        for node in nodes:
            if any(n in moved for n in node.all_input_nodes):
                moved.add(node)
        return moved


def _equal(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).abs() <= RIGHT * b.abs()
