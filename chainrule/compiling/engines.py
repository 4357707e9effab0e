"""The engines by name: each makes from a lowered step a function of the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.graph.whole import Whole, whole
from chainrule.compiling.islands import left_to_a_library, with_islands
from chainrule.compiling.memory import size_of
from chainrule.compiling.optimisers import Optimiser
from chainrule.compiling.plan import Plan
from chainrule.compiling.straight.arrangement import Memory
from chainrule.compiling.straight.code import Straight
from chainrule.compiling.straight.moves import Moves
from chainrule.errors import ChainruleError, NotFinite

ENGINES = ("torch", "inductor", "c", "cudagraph", "auto")

Moments = dict[fx.Node, list[torch.Tensor]]


def planned(engine: str, lowered: Lowered, optimiser: Optimiser | None, moments: Moments) -> Plan:
    """The plan of one engine. Raises ChainruleError where the engine is not to be had for this step."""
    if engine == "torch":
        return Plan.of_code("torch", Straight(lowered, Moves(optimiser, moments) if optimiser else None))
    if engine == "c" and any(map(left_to_a_library, lowered.graph.nodes)):
        return _beside_libraries(lowered, optimiser, moments)
    complete = whole(lowered, optimiser, moments, guarded=engine != "c")
    made = _MADE_BY[engine](complete)
    call = Fused(complete, made.function, optimiser, lowered, looks=engine != "c")
    drawn = [size_of(n.meta["val"]) for n in lowered.drawn]  # held, and made anew, one by one, at first
    memory = Memory(made.arena, sum(drawn), max(drawn, default=0)) if engine == "c" else None
    plan = Plan(engine, lowered, call, made.source, memory)
    call.stop, plan.drawn = plan.stop, dict(zip(lowered.drawn, (tensor for tensor, _ in call.again)))
    return plan


def _beside_libraries(lowered: Lowered, optimiser: Optimiser | None, moments: Moments) -> Plan:
    """C between the calls of libraries, for a step with large products."""
    from chainrule.compiling.c import NoCompiler, NoSpelling

    try:
        changed, sources, scratch = with_islands(lowered)
    except (NoSpelling, NoCompiler) as error:
        raise ChainruleError(str(error)) from error
    at = dict(zip(lowered.gradients, changed.gradients))
    moved = Moves(optimiser, {at[p]: own for p, own in moments.items()}) if optimiser else None
    plan = Plan.of_code("c", Straight(changed, moved), sources)
    assert plan.memory is not None
    plan.memory = replace(plan.memory, constants=plan.memory.constants + scratch)
    return plan


@dataclass(frozen=True)
class Made:
    """A compiled function of the batch, its text, and the bytes that it works in."""

    function: Callable[..., Any]
    source: str
    arena: int = 0


def _by_inductor(step: Whole) -> Made:
    from chainrule.compiling import inductor

    if inductor.compiler() is None:
        raise ChainruleError(
            "inductor needs a C++ compiler, and none is found (g++ or clang++, or what CXX names); install one"
        )
    source = str(step.graph.python_code("self").src)
    function = inductor.compiled(step)
    arguments: list[Any] = [step.held.get(n) for n in step.inputs]
    slots = [i for i, n in enumerate(step.inputs) if n not in step.held]

    def of_batch(*batch: torch.Tensor) -> Any:
        given = list(arguments)
        for slot, tensor in zip(slots, batch):
            given[slot] = tensor
        return function(*given)

    return Made(of_batch, source)


def _by_c(step: Whole) -> Made:
    from chainrule.compiling.c import NoCompiler, NoSpelling, compile_c

    try:
        loss = step.returned[0] if step.writes else None
        made = compile_c(step.graph, step.returned, step.writes, step.names, finite=loss)
    except (NoSpelling, NoCompiler) as error:
        raise ChainruleError(str(error)) from error
    return Made(made.bind(step.held), made.source, made.arena)


def _by_cudagraph(step: Whole) -> Made:
    from chainrule.compiling import cudagraph

    devices = {n.meta["val"].device.type for n in step.inputs if n not in step.numbers}
    if not torch.cuda.is_available() or devices != {"cuda"}:
        raise ChainruleError("a CUDA graph needs the parameters and the batch on a CUDA device")
    function = cudagraph.function_of(step)
    return Made(cudagraph.recorded(step, function), str(step.graph.python_code("self").src))


_MADE_BY: dict[str, Callable[[Whole], Made]] = {
    "inductor": _by_inductor,
    "c": _by_c,
    "cudagraph": _by_cudagraph,
}


class Fused:
    """The call of an engine that takes the whole step as one function of the batch."""

    def __init__(
        self, step: Whole, of_batch: Callable[..., Any], optimiser: Optimiser | None, lowered: Lowered, looks: bool
    ) -> None:
        self.of_batch, self.optimiser = of_batch, optimiser
        self.used = [i for i, n in enumerate(step.batch) if n is not None]
        self.all_used = len(self.used) == len(step.batch)
        self.numbers = [step.held[n] for n in step.numbers]
        self.last: tuple[float, ...] = ()
        self.again = [(step.held[n], again) for n, again in step.drawn.items()]
        self.names = [lowered.names[p] for p in lowered.gradients]
        self.stop: Callable[..., Any] = print
        self.looks = looks

    def __call__(self, *batch: torch.Tensor) -> Any:
        if not self.all_used:
            batch = tuple(batch[i] for i in self.used)
        for tensor, again in self.again:
            tensor.copy_(again())
        optimiser = self.optimiser
        if optimiser is None:
            loss, *gradients = self.of_batch(*batch)
            return loss, dict(zip(self.names, gradients))
        numbers = optimiser.numbers()
        if numbers != self.last:
            for number, value in zip(self.numbers, numbers):
                number.fill_(value)
            self.last = numbers
        try:
            (loss,) = self.of_batch(*batch)
        except NotFinite:
            self.stop(*batch)
        if self.looks and not isfinite(loss.item()):
            self.stop(*batch)
        optimiser.steps += 1
        return loss


def told(engine: str, error: Exception) -> None:
    """Say that an engine is left out, and why."""
    warnings.warn(
        f'the engine "{engine}" is left out, the step goes on with "torch": {error}', RuntimeWarning, stacklevel=6
    )
