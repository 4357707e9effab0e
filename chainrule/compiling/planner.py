"""From a batch to a plan: derive, lower, have an engine write it, and compare it with autograd."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from chainrule.compiling.forms import shorten
from chainrule.compiling.lowering import Lowered, lower, written
from chainrule.compiling.merging import merge
from chainrule.compiling.moves import Moves
from chainrule.compiling.optimisers import Optimiser
from chainrule.compiling.ownership import Place, places
from chainrule.compiling.plan import Plan
from chainrule.compiling.straight import Straight
from chainrule.compiling.verify import confirm
from chainrule.derivation import Derivation
from chainrule.deriving import arguments_of, derivation, new_recorder, record_call
from chainrule.recording.names import caller

ENGINES = ("torch", "inductor", "c", "cudagraph", "auto")


class Planner:
    """What stays the same from one shape of batch to the next."""

    def __init__(
        self,
        forward: Callable[..., torch.Tensor],
        params: list[torch.Tensor] | None,
        optimiser: Optimiser | None,
        engine: str,
        dtype: torch.dtype | None,
        accumulate: int,
        recompute: str,
        memory: float | None,
    ) -> None:
        self.forward, self.params, self.optimiser, self.engine = forward, params, optimiser, engine
        self.dtype, self.accumulate, self.recompute, self.memory = dtype, accumulate, recompute, memory
        self.names: dict[int, str] = {}  # of parameters, by the id of the tensor
        self.moments: dict[int, list[torch.Tensor]] = {}  # the optimiser's, likewise
        self.places: list[Place] = []

    def plan(self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: Sequence[torch.Tensor]) -> Plan:
        """The plan for batches like this one. Nothing that the person holds is changed by planning."""
        clock = [time.perf_counter()]
        with undisturbed():
            d = self._derived(args, kwargs)
        for home in written(d.program):
            home.meta["given"].data.copy_(home.meta["val"])
        clock.append(time.perf_counter())
        lowered = self._lowered(d, batch)
        clock.append(time.perf_counter())
        moves = Moves(self.optimiser, self._moments(lowered)) if self.optimiser else None
        emitted = Straight(lowered, moves).emitted()
        plan = Plan("torch", lowered, emitted, {})
        clock.append(time.perf_counter())
        confirm(plan, self, args, kwargs, batch)
        clock.append(time.perf_counter())
        words = ("deriving", "lowering", "writing and measuring", "comparing with autograd")
        plan.seconds = {word: end - start for word, start, end in zip(words, clock, clock[1:])}
        return plan

    def _derived(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Derivation:
        recorder = new_recorder()
        recorder.forward = self.forward
        recorder.arguments = arguments_of(self.forward, args, kwargs, caller())
        with torch.enable_grad():
            output = record_call(recorder, self.forward, args, kwargs)
        return derivation(recorder, output, self.params, None, check=False)

    def _lowered(self, d: Derivation, batch: Sequence[torch.Tensor]) -> Lowered:
        if self.params is None:
            self.params = [t for t, _ in d.pairs()]
        after = self.optimiser.clipped if self.optimiser and self.accumulate == 1 else list
        lowered = lower(d, batch, self.params, self.dtype, after)
        merge(lowered)
        shorten(lowered)
        self.names |= {id(lowered.held[p]): lowered.names[p] for p in lowered.gradients}
        if not self.places:
            self.places = places(self.forward, self.params)
        return lowered

    def _moments(self, lowered: Lowered) -> dict[Any, list[torch.Tensor]]:
        assert self.optimiser is not None
        found = {}
        for p in lowered.gradients:
            tensor = lowered.held[p]
            known = self.moments.get(id(tensor))
            if known is None or any(m.shape != tensor.shape or m.dtype != tensor.dtype for m in known):
                made = [torch.zeros_like(tensor).detach() for _ in self.optimiser.state_names]
                self.moments[id(tensor)] = made
            found[p] = self.moments[id(tensor)]
        return found

    def name_of(self, parameter: torch.Tensor) -> str:
        """The person's name of a parameter."""
        return self.names.get(id(parameter), "a parameter")

    def named_state(self) -> dict[str, torch.Tensor]:
        """The optimiser's tensors, by name."""
        words = self.optimiser.state_names if self.optimiser else ()
        return {f"{self.names[key]}.{w}": m for key, found in self.moments.items() for w, m in zip(words, found)}


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the generator of random numbers as it was."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
