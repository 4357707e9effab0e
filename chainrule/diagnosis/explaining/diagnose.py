"""From a wrong gradient to its cause: the small change that explains the person's numbers, and the one that mends them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import fx

from chainrule.diagnosis.explaining import jacobians, wraps
from chainrule.diagnosis.explaining.addends import Addends
from chainrule.diagnosis.explaining.arrangements import orders_in
from chainrule.diagnosis.explaining.counts import averaged_over, other_counts
from chainrule.diagnosis.explaining.exchanges import right_results
from chainrule.diagnosis.explaining.factors import factors_of
from chainrule.diagnosis.explaining.facts import Facts
from chainrule.diagnosis.explaining.likelihood import compare_locals
from chainrule.diagnosis.explaining.mutation import DROPPED, REPLACED, WRAPPED, Around, Mutation, Names
from chainrule.diagnosis.explaining.scales import Named
from chainrule.diagnosis.explaining.search import Search, Trial
from chainrule.diagnosis.explaining.suspects import suspects
from chainrule.diagnosis.explaining.terms import combined, several_lost
from chainrule.diagnosis.explaining.verdict import ALSO_SCALES, Diagnosis
from chainrule.diagnosis.locating.history import of_history
from chainrule.diagnosis.locating.locate import Located, Wrong
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.paths import lost_from
from chainrule.diagnosis.reading.returns import function_of
from chainrule.diagnosis.reading.spots import span_of
from chainrule.diagnosis.repairing.reach import Reach
from chainrule.diagnosis.repairing.wording import numbers_in, numbers_of_sizes
from chainrule.diagnosis.truth.case import Case, Point, inner, same
from chainrule.diagnosis.truth.sketch import Sketches, is_size, is_tensor
from chainrule.run import needed
from chainrule.work import work

_FAR = WRAPPED + 1.25  # a change that is no more likely than what the numbers say
_NAMES = 40  # tensors in reach that are tried in the place of another
_SECONDS = 3.5  # of work on the person's own line
_SECONDS_MORE = 1.0  # where the cause is known already, for a nearer change


class Diagnoser(Facts):
    """Looks for the cause of one wrong claim."""

    def __init__(self, case: Case, located: Located, wrong: Wrong) -> None:
        super().__init__(case, located, wrong)
        self.sketches = Sketches(case.graph)
        self._reached: dict[int, Names] = {}  # by the names of a spot
        self.place: fx.Node | None = None  # of the term of a sum that is wrong, where the numbers tell

    @cached_property
    def reach(self) -> Reach:
        assert self.claim.spot is not None
        return Reach(self.claim.spot, self.case.recorder)

    def diagnosis(self) -> Diagnosis:
        ratio = self.ratio()
        repairs = self._repairs() if self.claim.spot is not None else []
        made = [] if repairs and repairs[0].weight < DROPPED + 0.5 else self._made()
        dropped = not self.reads_gradients and self.needs_gradients
        ranked = [(m.weight + 0.05, m.makes, "made") for m in made if m.makes != "upstream-dropped" or dropped]
        ranked = [*((m.weight + 0.5 * m.strange, m.repairs, "repair") for m in repairs), *ranked]
        ranked = sorted(ranked, key=lambda r: (r[0], not (dropped and r[1] == "upstream-dropped"), r[1]))
        if repairs and repairs[0].repairs in ("wrong-scale", "wrong-term-scale"):  # nothing is added there
            ranked = [r for r in ranked if r[1] != "double-counted-path"]
        told_by = {cause: by for _, cause, by in reversed(ranked)}
        causes = [cause for weight, cause, _ in ranked if weight <= ranked[0][0] + 0.5]
        if not ranked or ranked[0][0] > _FAR:
            factor, by_elements = self.other_factor(), self.by_elements()
            masked = "wrong-mask" in by_elements
            causes[:0] = numbers = [factor] if factor and not masked else by_elements
            told_by |= dict.fromkeys(numbers, "fact" if factor else "numbers")
        facts: list[str] = []
        if ratio is not None and (not causes or causes[0] in ALSO_SCALES):
            facts = ["sign" if abs(ratio + 1) < 1e-9 else "wrong-scale"]
        if self.claim.tensor.shape != self.claim.value.meta["val"].shape and not causes:
            facts = ["wrong-shape"]
        first = ("wrong-scale", "sign") if ratio is not None else ("lost-path", "missing-term")  # which say it all
        says_all = bool(causes) and causes[0] in first and (ratio is not None or self.gives_anything)
        without = [] if repairs and repairs[0].weight < 1 else self.without_gradients()
        facts += without if facts or not says_all else []
        if not self.claim.tensor.ndim and self.claim.value.meta["val"].ndim:
            facts.insert(0, "wrong-shape")
        if self.is_wrong_for_ties_only():
            facts.insert(0, "ties")
        causes = list(dict.fromkeys([*facts, *causes])) or ["unknown"]
        event = bool(repairs) and repairs[0].weight < 1  # of the run
        by = "fact" if facts or event else told_by.get(causes[0], "fact")
        return Diagnosis(causes[0], repairs, tuple(causes[1:3]), ratio, self._said(ratio), by)

    def _said(self, ratio: float | None) -> str:
        if ratio is None or self.claim.spot is None:
            return ""
        values = self.case.here.values
        resized = self.trial(self._resized) if self._resized is not None else None
        around = Around(self.sketches, self._names(), constants=self._constants())
        search = Search([], self.claim.node, [], around, resized=resized)
        fed = resized.values.get(self.claim.node) if resized is not None else None
        then = None
        if resized is not None and isinstance(fed, torch.Tensor) and fed.shape == resized.goal.shape:
            then = inner(fed, resized.goal) / inner(resized.goal, resized.goal)
        return search.scales.said(ratio, values, self.reach.names, then)

    # -- the person's own code, changed ------------------------------------------------------------

    def _repairs(self) -> list[Mutation]:
        trials = [t for p in self.points if (t := self.trial(p)) is not None]
        if not trials:
            return []
        upstream = [n for n in [self.case.base.upstream] if n is not None]
        carries = self.carrying(self.mine, [c.node for c in self.above] + upstream)
        gradients = self.carrying(self.case.theirs, [c.node for c in self.others] + upstream)
        gradients |= set(self.case.base.gradients.values())
        around = Around(self.sketches, self._names(), carries, gradients, self._divisors)
        around.numbers, around.at, around.until = self.reach.numbers, self._names_at, self.case.until
        around.constants = self._constants()
        counts = (a for n in self.right if n.meta["operation"] in ("add", "sub", "mul", "div", "pow") for a in n.args)
        around.counted = {float(a.meta["val"]) for a in counts if isinstance(a, fx.Node) and is_size(a)}
        around.sizes, around.shapes, around.value = self._sizes(), self.reach.shapes(), self.claim.value
        around.orders = orders_in(self.right)
        around.areas = averaged_over(self.case.forward, self.sketches)
        resized = self.trial(self._resized) if self._resized is not None else None
        factors = factors_of(self.right, self.carrying(self.right, self.given_above), self.sketches)
        search = Search(self.mine, self.claim.node, trials, around, factors, resized, self.beside, _SECONDS)
        if self._lacks_a_term(trials[0]):  # which says most of it
            search.until = min(search.until, work() + _SECONDS_MORE)
        search.try_all(of_history(self.case, self.claim, self.mine, self.sketches))
        suspected = suspects(self.case, self.mine, carries, trials[0].values)
        addends = self._addends(search)
        if addends is not None:
            self.place = addends.place
            search.try_all(addends.begun())
            suspected |= self._line_of(self.place)
        suspected |= self.helped_too
        search.run(suspected)
        for node in self.mine if self.helped_too else ():  # one reason for several lines, where they call one function
            search.try_all(m for m in right_results(node, search.factors, around) if m.at in self.helped_too)
            if node in self.helped_too:
                search.try_all(wraps.complements(search, node))
        search.try_all(self._skips())
        if not search.best and addends is not None:
            search.last_moments()
            search.try_all(addends.repairs())
        if not search.best or self.helped_too:  # of a size that several lines read
            search.last_moments()
            search.try_all(other_counts(search, self.reach.sizes, self.claim.spot))
        if not any(m.weight < WRAPPED + 1 for m in search.best):
            search.try_all(self._terms())
            search.try_all(wraps.regularisers(search))
            search.try_all(wraps.products(search))
            search.try_all(wraps.averages(search))
        compare_locals(self.case, self.mine, search, self.right, self.given_above)
        return search.best

    def _addends(self, search: Search) -> Addends | None:
        """The terms of the person's sum beside the right ones, where nothing in the run tells what is wrong."""
        gradient = self.case.base.gradients.get(self.claim.value)
        if gradient is None or search.best or not search.shaped:
            return None
        return Addends(self.case, search, gradient, [*self.above, *self.others])

    def _line_of(self, node: fx.Node | None) -> set[fx.Node]:
        """What stands on the line of a node, in every turn."""
        spot = node.meta.get("spot") if node is not None else None
        at = (spot.code, spot.line) if spot is not None else None
        return {n for n in self.mine if (s := n.meta.get("spot")) is not None and (s.code, s.line) == at}

    def _skips(self) -> Iterator[Mutation]:
        """Several operations left out at once: `p - y` times p (1 - p) again."""
        value = self.case.here.values.get(self.claim.node)
        node = self.claim.node
        for before in self.mine:
            held = self.case.here.values.get(before)
            near = before in node.all_input_nodes
            if before is not node and not near and getattr(held, "shape", None) == getattr(value, "shape", ()):
                yield Mutation(node, before, "double-applied", DROPPED + 0.2)
        for product in (n for n in self.mine if n.meta["operation"] == "mul"):
            factors = _factors_of(product)
            if any(f.meta["operation"] in ("sub", "rsub") and 1 in f.args for f in factors):
                alike = [f for f in factors if f.meta["val"].shape == product.meta["val"].shape]
                for factor in alike if len(factors) > 2 else ():  # p - y is nearest to (p - y) * p * (1 - p)
                    yield Mutation(product, factor, "double-applied", REPLACED - 0.1)

    def _lacks_a_term(self, trial: Trial) -> bool:
        """Whether the person's numbers are the right ones without one term of a sum."""
        value = trial.values.get(self.claim.node)
        if not isinstance(value, torch.Tensor) or value.shape != trial.goal.shape:
            return False
        lost = trial.goal - value
        sums = [n for n in self.right if n.meta["operation"] in ("add", "sub")]
        terms = [self.case.here.values.get(a) for n in sums for a in n.args if isinstance(a, fx.Node)]
        return any(same(lost, t) for t in terms if isinstance(t, torch.Tensor) and t.is_floating_point())

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

    def _constants(self) -> list[float]:
        """The numbers that the forward pass multiplies and divides by: those that stand in its source, and those that it
        computes of numbers that have a name here, too: `math.sqrt(d_k)`."""
        here, found = self.case.here.values, dict[float, float]()
        spots = [self.claim.spot, *(n.meta.get("spot") for n in self.mine if self.case.in_backward(n))]
        held = {text: value for spot in spots if spot is not None for text, value in spot.names.items()}
        for node in self.case.forward:
            span = span_of(node) if node.meta.get("operation") in ("mul", "div") else None
            args = [here.get(a) if isinstance(a, fx.Node) else a for a in node.args] if span is not None else []
            numbers = {abs(float(a)) for a in args if isinstance(a, int | float) and a}
            statement = source.statement_at(span) if span is not None and numbers else None
            if statement is None:
                continue
            computed = numbers_in(statement, held, whole=True)
            found |= {v: Named(v, text) for v, text in computed.items() if v in numbers}
            found |= {v: v for v in numbers & source.numbers_at(span) if v not in found and not v.is_integer()}
        return list(found.values())

    def _sizes(self) -> list[fx.Node]:
        """The sizes that have a name of their own: `n, c = x.shape`, also where it was saved."""
        entries = (size for _, size in self.reach.named_sizes.named)
        here = ((value, axis) for value, axis in entries if axis is not None and value in self.case.here.values)
        return [*self.reach.sizes, *(self.sketches.size(value, axis) for value, axis in dict.fromkeys(here))]

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
        return {self.claim.node, *self.readers(self.claim.node)}

    @cached_property
    def _divisors(self) -> set[fx.Node]:
        """What the right gradient is divided by, and the factors of that."""
        divided = [n.args[1] for n in self.right if n.meta["operation"] == "div"]
        return {f for d in divided if isinstance(d, fx.Node) for f in (d, *_factors_of(d))}

    # -- the right gradient, changed ---------------------------------------------------------------

    def _made(self) -> list[Mutation]:
        """Changes to the right gradient that give the person's numbers."""
        gradient = self.case.base.gradients.get(self.claim.value)
        trials = []
        for point in self.points:
            fed = self.fed(point)
            if fed is not None and fed.numel():
                trials.append(Trial(point.values, fed))
        if gradient is None or not trials:
            return []
        names = {n: t for n, t in self.case.names.items() if n in self.case.forward and is_tensor(n)}
        carries, gradients = self.carrying(self.right, self.given_above), set(self.case.base.gradients.values())
        around = Around(self.sketches, names, carries, gradients, self._divisors, until=self.case.until)
        search = Search(self.right, gradient, trials, around)
        found = combined(search, trials)  # few runs, which a large network has the time for
        search.until -= _SECONDS_MORE if found else 0.0
        search.run()
        search.try_all(self._without_upstream())
        search.try_all(self._shorter(search))
        if not found and not search.best:
            search.try_all(several_lost(search))
        found += jacobians.mistaken(search, self.given_above, self.claim.value)
        return sorted([*search.best, *found], key=lambda m: m.weight)

    def _shorter(self, search: Search) -> Iterator[Mutation]:
        """The gradient as it was before several operations of the derivative: the mask and the scale of a dropout."""
        root = search.root
        sums = [n for n in search.nodes if n.meta["operation"] in ("add", "sub", "sum")]
        summed = set(needed(sums))  # what is a term, or part of one
        for before in [*search.nodes, *self.given_above]:
            value = self.case.here.values.get(before)
            same_shape = getattr(value, "shape", None) == self.case.here.values[root].shape
            if before is not root and isinstance(value, torch.Tensor) and same_shape and before not in summed:
                yield Mutation(root, before, "missing-factor", DROPPED + 0.1, "missing-factor")

    def _without_upstream(self) -> Iterator[Mutation]:
        for node in self.given_above:
            yield Mutation(node, self.sketches.method("new_ones", node, self.sketches.attribute(node, "shape")),
                           "upstream-dropped", DROPPED)  # fmt: skip

    # -- values ------------------------------------------------------------------------------------

    @cached_property
    def _resized(self) -> Point | None:
        """Other sizes, unless lines that are right go wrong there, or numbers stay that come from sizes: `len(x)` leaves a
        number that nobody can change, and so does `eps / k`."""
        point = self.case.resized if self.case.tracked(self.claim) else None
        if point is None or self._keeps_numbers_of_sizes():
            return None
        right = [c for c in self.case.claims if same(self.case.here.values.get(c.node), self.case.here.truth(c.value))]
        return point if all(same(point.values.get(c.node), point.truth(c.value)) for c in right) else None

    def _keeps_numbers_of_sizes(self) -> bool:
        """Whether the forward pass reads a number that was computed of a size, and does not follow it."""
        read = {float(a) for n in self.case.forward for a in n.args if type(a) is float and not a.is_integer()}
        spots = {s.code: s for n in self.case.forward if read and (s := n.meta.get("spot")) is not None}
        functions = ((function_of(code), spot.names) for code, spot in spots.items())
        return any(f is not None and not read.isdisjoint(numbers_of_sizes(f, names)) for f, names in functions)


def _factors_of(product: fx.Node) -> list[fx.Node]:
    """What a product is made of, products of products opened."""
    if product.meta["operation"] != "mul":
        return [product]
    return [factor for node in product.all_input_nodes for factor in _factors_of(node)]
