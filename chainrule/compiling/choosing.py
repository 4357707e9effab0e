"""Which plan a step runs: each is tried on the batch itself, of the engines and in slices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import fx

from chainrule.compiling.engines import planned
from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.graph.recomputing import FREE, SMALL
from chainrule.compiling.optimisers import Optimiser
from chainrule.compiling.plan import Plan
from chainrule.compiling.slicing.loop import in_slices
from chainrule.compiling.slicing.shares import NotByRows
from chainrule.errors import ChainruleError

SLICED = ("torch", "c")  # engines that can take a step in slices
MOST = 4096  # slices
CACHE = 1 << 23  # bytes of the batch in a slice: what a last cache holds from the forward to the backward pass
ROUNDS = 5  # in which plans are tried in turn,
LONG_ENOUGH = 0.08  # or as many, two at least, as take this long for one: seconds


class Tried:
    """The plans of a step for one batch of `size` bytes, compared with autograd by `confirmed`."""

    def __init__(
        self,
        lowered: Lowered,
        optimiser: Optimiser | None,
        moments: dict[fx.Node, list[torch.Tensor]],
        size: int,
        budget: int | None,
        confirmed: Callable[[Plan], None],
    ) -> None:
        self.lowered, self.optimiser, self.moments = lowered, optimiser, moments
        self.size, self.budget, self.confirmed = size, budget, confirmed
        self.plans: list[list[Plan]] = []  # of each engine: of the whole batch, and in slices

    def add(self, engine: str) -> None:
        """The plans of one engine. Raises ChainruleError where it is not to be had, or needs more than the budget."""
        whole = planned(engine, self.lowered, self.optimiser, self.moments)
        fits = self.budget is None or whole.peak_bytes <= self.budget
        found = [whole] if fits else []
        least = whole.peak_bytes
        for count in self._counts(whole, fits):
            try:
                sliced = in_slices(engine, self.lowered, count, self.optimiser, self.moments)
            except NotByRows:
                break
            least = min(least, sliced.peak_bytes)
            if self.budget is None or sliced.peak_bytes <= self.budget:
                found.append(sliced)
                break
        if not found:
            assert self.budget is not None
            raise ChainruleError(
                f"the step needs at least {math.ceil(least / 1e3) / 1e3:g} MB beside its parameters, and memory={self.budget / 1e6:g} "
                "was given; give that much, or a smaller batch"
            )
        for plan in found:
            self.confirmed(plan)
        self.plans.append(found)

    def _counts(self, whole: Plan, fits: bool) -> Iterator[int]:
        """Into how many slices the batch may be cut: as the cache has it, and then into more until the budget is met."""
        rows = next((n.meta["val"].shape[0] for n in self.lowered.batch if n is not None and n.meta["val"].ndim), 0)
        if whole.engine not in SLICED or (fits and (whole.peak_bytes < SMALL or self.budget is not None)):
            return
        shares = [count for count in range(2, min(rows, MOST + 1)) if rows % count == 0]
        wanted = max(2, self.size // CACHE)
        first = max((count for count in shares if count <= wanted), default=2)
        for count in shares:
            if count >= first:
                yield count
                first = 2 * count

    def best(self, run: Callable[[Plan], object]) -> Plan:
        """The fastest plan; of those of one engine, the one that needs less memory, where that takes little time."""
        everything = [plan for plans in self.plans for plan in plans]
        if len(everything) == 1:
            return everything[0]
        seconds = _timed(everything, run)
        chosen = []
        for plans in self.plans:
            least = min(seconds[plan] for plan in plans)
            free = [plan for plan in plans if seconds[plan] <= (1 + FREE) * least]
            chosen.append(min(free, key=lambda plan: (plan.peak_bytes, seconds[plan])))
        best = min(chosen, key=seconds.__getitem__)
        best.compared = {plan.title: seconds[plan] for plan in everything}
        return best


def _timed(plans: list[Plan], run: Callable[[Plan], object]) -> dict[Plan, float]:
    """The seconds that a step takes by each plan: the least of several rounds, in turn."""
    best = dict.fromkeys(plans, float("inf"))
    spent = 0.0
    for number in range(ROUNDS):
        for plan in plans:
            start, count = time.perf_counter(), 0
            while not count or time.perf_counter() - start < LONG_ENOUGH / ROUNDS:
                run(plan)
                count += 1
            taken = time.perf_counter() - start
            spent += taken
            best[plan] = min(best[plan], taken / count)
        if number and spent > LONG_ENOUGH * len(plans):
            break
    return best
