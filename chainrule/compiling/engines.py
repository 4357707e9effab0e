"""The engines by name: each makes from a lowered step a function of the batch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from chainrule.compiling.lowering import Lowered
from chainrule.compiling.moves import Moves
from chainrule.compiling.optimisers import Optimiser
from chainrule.compiling.plan import Plan
from chainrule.compiling.straight import Straight
from chainrule.compiling.whole import Whole, whole
from chainrule.errors import ChainruleError

ENGINES = ("torch", "inductor", "c", "auto")

Moments = dict[fx.Node, list[torch.Tensor]]


def planned(engine: str, lowered: Lowered, optimiser: Optimiser | None, moments: Moments) -> Plan:
    """The plan of one engine. Raises ChainruleError where the engine is not to be had for this step."""
    if engine == "torch":
        emitted = Straight(lowered, Moves(optimiser, moments) if optimiser else None).emitted()
        return Plan("torch", lowered, emitted)
    complete = whole(lowered, optimiser, moments)
    if engine == "inductor":
        from chainrule.compiling import inductor

        if inductor.compiler() is None:
            raise ChainruleError(
                'engine="inductor" needs a C++ compiler, and none is found (g++ or clang++, or CXX); install one, or take '
                'engine="torch"'
            )
        call = Fused(complete, inductor.compiled(complete), optimiser, list(lowered.gradients), lowered)
        return Plan("inductor", lowered, call=call, source=complete.graph.python_code("self").src)
    raise ChainruleError(f'engine="{engine}" is not to be had here')


class Fused:
    """The call of an engine that takes the whole step as one function of all that it reads."""

    def __init__(
        self, step: Whole, function: Callable[..., Any], optimiser: Optimiser | None, params: list[fx.Node], lowered: Lowered
    ) -> None:
        self.function, self.optimiser = function, optimiser
        self.slots = [step.inputs.index(n) if n is not None else None for n in step.batch]
        self.numbers = [torch.zeros((), dtype=n.meta["val"].dtype) for n in step.numbers]
        self.drawn = {n: again() for n, again in step.drawn.items()}
        self.again = step.drawn
        filled = {**{n: t.detach() for n, t in step.held.items()}, **self.drawn, **dict(zip(step.numbers, self.numbers))}
        self.arguments: list[Any] = [filled.get(n) for n in step.inputs]
        self.names = [lowered.names[p] for p in params]
        self.stop: Callable[..., Any] = lambda *batch: None

    def __call__(self, *batch: torch.Tensor) -> Any:
        arguments = list(self.arguments)
        for slot, tensor in zip(self.slots, batch):
            if slot is not None:
                arguments[slot] = tensor
        for node, again in self.again.items():
            self.drawn[node].copy_(again())
        if self.optimiser is None:
            loss, *gradients = self.function(*arguments)
            return loss, dict(zip(self.names, gradients))
        for number, value in zip(self.numbers, self.optimiser.numbers()):
            number.fill_(value)
        (loss,) = self.function(*arguments)
        if not torch.isfinite(loss):
            self.stop(*(t for t, slot in zip(batch, self.slots) if slot is not None))
        self.optimiser.steps += 1
        return loss


def fastest(plans: Sequence[Plan], run: Callable[[Plan], None]) -> Plan:
    """The plan that runs fastest, each tried for a while, in turn."""
    best = {plan.engine: float("inf") for plan in plans}
    for _ in range(5):
        for plan in plans:
            start, count = time.perf_counter(), 0
            while count < 2 or time.perf_counter() - start < 0.02:
                run(plan)
                count += 1
            best[plan.engine] = min(best[plan.engine], (time.perf_counter() - start) / count)
    chosen = min(plans, key=lambda plan: best[plan.engine])
    chosen.compared = best
    return chosen


def told(engine: str, error: Exception) -> None:
    """Say that an engine is left out, and why."""
    warnings.warn(f'the engine "{engine}" is left out, the step goes on with "torch": {error}', RuntimeWarning, stacklevel=6)
