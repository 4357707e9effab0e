"""What the numbers of one wrong gradient say, before anything in its line is changed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.exchanges import is_mask
from chainrule.diagnosis.explaining.factors import other_factor
from chainrule.diagnosis.explaining.search import FAILURES, Trial
from chainrule.diagnosis.locating.locate import Located, Wrong
from chainrule.diagnosis.truth.case import RIGHT, Case, Point, inner, same
from chainrule.diagnosis.truth.sketch import is_tensor
from chainrule.run import double, needed, run


class Facts:
    """A wrong gradient beside the right one, both computed from the right gradients above."""

    def __init__(self, case: Case, located: Located, wrong: Wrong) -> None:
        self.case, self.claim, self.above = case, wrong.claim, wrong.above
        self.mine = wrong.mine
        self.helped_too = wrong.common([w for w in located.wrong if w is not wrong and not wrong.is_turn_of(w)])
        self.others = [c for c in located.known if c.node is not self.claim.node]

    def other_factor(self) -> str:
        """The cause, where one factor stands in the place of another, or none does."""
        trial = self.trial(self.case.here)
        values = trial.values if trial is not None else {}
        upstream = [n for n in [self.case.base.upstream] if n is not None]
        carried = [*(c.node for c in self.above), *upstream]
        moved = self.carrying(self.mine, carried)
        carried += [n for n in self.mine if n in moved]
        return other_factor(self.mine, self.right, carried, values)

    @property
    def gives_anything(self) -> bool:
        """Whether the line gives anything but zeros."""
        fed = self.fed(self.case.here)
        return fed is None or bool(fed.any())

    @property
    def needs_gradients(self) -> bool:
        """Whether a gradient that the person has should enter the line: not into that of the loss."""
        later = self.readers(self.claim.value)
        return self.case.hand.upstream is not None or any(c.value in later for c in self.others)

    @cached_property
    def reads_gradients(self) -> bool:
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

    def is_wrong_for_ties_only(self) -> bool:
        """Whether the line is right where no two elements are equal."""
        point = self.case.off_kinks
        near = self.fed(point) if point is not None else None
        return near is not None and point is not None and same(near, point.truth(self.claim.value))

    def without_gradients(self) -> list[str]:
        """The cause, where no gradient enters the line although others are known that should."""
        if not self.gives_anything:
            return [] if self.above else ["missing-gradient"]  # it is computed, and comes to nothing
        gradient = self.case.base.gradients.get(self.claim.value)
        if self.reads_gradients or gradient is None:
            return []
        read = set(needed([gradient]))
        of_others = {self.case.base.gradients.get(c.value) for c in self.others if c.explicit} - {gradient, None}
        known = bool(of_others & read) or (self.case.hand.upstream is not None and self.case.base.upstream in read)
        return ["upstream-dropped"] if known else []

    def by_elements(self) -> list[str]:
        """What the numbers alone say, where no near change explains them."""
        sources = {n: self.case.here.values[n] for n in self.given_above}
        generator = torch.Generator().manual_seed(4321)
        moved = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in sources.items()}
        pairs = [self._with_gradients(given) for given in (sources, moved)]
        shapes = [getattr(v, "shape", None) for pair in pairs for v in pair]
        if not sources or None in shapes or len(set(shapes)) > 1:
            return [cause] if (cause := self.other_factor()) else []
        if all(bool(((mine == 0) | (right == 0) | _equal(mine, right)).all()) for mine, right in pairs):
            masked = any(is_tensor(n) and is_mask(n) for n in self.mine)
            return ["wrong-mask" if masked else "missing-factor"]
        (mine, right), (mine_then, right_then) = pairs  # one factor in the place of another, whatever it is times
        cause = self.other_factor()
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

    def ratio(self) -> float | None:
        """The person's numbers over the right ones, where that is the same number everywhere."""
        fed, truth = self.fed(self.case.here), self.case.here.truth(self.claim.value)
        if fed is None or fed.shape != truth.shape or not bool(truth.any()):
            return None
        ratio = inner(fed, truth) / inner(truth, truth)
        if not ratio or not same(fed, truth * ratio):
            return None
        for point in self.points[1:2]:  # a number, not a value that happens to be the same everywhere
            fed, truth = self.fed(point), point.truth(self.claim.value)
            if fed is not None and fed.shape == truth.shape and not same(fed, truth * ratio):
                return None
        return ratio

    def readers(self, node: fx.Node) -> set[fx.Node]:
        found, stack = set(), [node]
        while stack:
            for user in stack.pop().users:
                if user not in found and user.meta.get("phase") == "forward":
                    found.add(user)
                    stack.append(user)
        return found

    @cached_property
    def given_above(self) -> list[fx.Node]:
        gradients = self.case.base.gradients
        found = [gradients[c.value] for c in self.above if c.value in gradients]
        return found or [n for n in [self.case.base.upstream] if n is not None]

    @cached_property
    def right(self) -> list[fx.Node]:
        """The nodes of the right gradient, from the gradients that the person's line reads."""
        gradient = self.case.base.gradients.get(self.claim.value)
        if gradient is None:
            return []
        closed = {n for n in self.case.graph.nodes if n.meta["phase"] == "forward"} | set(self.given_above)
        return [n for n in needed([gradient], given=closed) if n not in closed]

    @cached_property
    def points(self) -> list[Point]:
        return [self.case.here, *(self.case.elsewhere if self.case.tracked(self.claim) else [])]

    def fed(self, point: Point) -> torch.Tensor | None:
        return self.case.fed(self.claim, self.above, point)

    def carrying(self, nodes: list[fx.Node], sources: list[fx.Node]) -> set[fx.Node]:
        moved = set(sources)
        for node in nodes:
            if any(n in moved for n in node.all_input_nodes):
                moved.add(node)
        return moved

    def trial(self, point: Point) -> Trial | None:
        """The values at a point, with the right gradients for every other claim, and what this one should be."""
        values = dict(point.values)
        for other in self.others:
            values[other.node] = point.truth(other.value)
        try:
            with torch.no_grad():
                for node in self.before:
                    values.pop(node, None)
                values = run(self.before, values, double)
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
            for node in self.before:
                values.pop(node, None)
        return Trial(values, point.truth(self.claim.value))

    @cached_property
    def beside(self) -> list[fx.Node]:
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

    @cached_property
    def before(self) -> list[fx.Node]:
        """What the person computed until this line, from the gradients that are known too."""
        known, found = {c.node for c in self.others}, []
        for node in self.case.graph.nodes:
            if node.meta.get("spot") is not None and node.op != "placeholder" and node not in self.case.forward | known:
                found.append(node)
            if node is self.claim.node:
                break
        return found


def _equal(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).abs() <= RIGHT * b.abs()
