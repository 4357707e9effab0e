"""From a batch to a plan: derive, lower, have an engine write it, and compare it with autograd."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from chainrule.compiling.choosing import Tried
from chainrule.compiling.engines import ENGINES, told
from chainrule.compiling.graph.forms import lay_out, shorten
from chainrule.compiling.graph.lowering import Lowered, lower, written
from chainrule.compiling.graph.merging import merge
from chainrule.compiling.graph.precision import products_in
from chainrule.compiling.graph.recomputing import recompute
from chainrule.compiling.memory import size_of
from chainrule.compiling.optimisers import Gathering, Optimiser
from chainrule.compiling.ownership import Place, apart, surroundings
from chainrule.compiling.plan import Plan
from chainrule.compiling.straight.arrangement import Arrangement
from chainrule.compiling.straight.moves import Moves
from chainrule.compiling.straight.products import products_time
from chainrule.compiling.verify import Autograd, hardly_moving, put_back
from chainrule.compiling.verify_writes import Unwritten
from chainrule.derivation import Derivation
from chainrule.deriving import derivation_with
from chainrule.errors import ChainruleError, NotFinite
from chainrule.rules import KERNELS


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
        self.settled = params is not None or optimiser is not None  # else each batch asks for its own gradients too
        self.names: dict[int, str] = {}  # of parameters, by the id of the tensor
        self.moments: dict[tuple[int, str], list[torch.Tensor]] = {}  # the optimiser's, likewise, by its kind
        self.inner = Gathering(optimiser=optimiser, every=accumulate) if optimiser and accumulate > 1 else optimiser
        self.places: list[Place] = []
        self.asked: dict[int, bool] = {}  # whether each parameter required a gradient at first, by the id of the tensor
        self.modules: list[torch.nn.Module] = []  # that forward reaches
        self.recomputed: list[str] = []  # values that the last plan computes again

    def plan(self, args: tuple[Any, ...], kwargs: dict[str, Any], batch: Sequence[torch.Tensor]) -> Plan:
        """The plan for batches like this one. Nothing that the person holds is changed by planning."""
        clock = [time.perf_counter()]
        there = Unwritten(self.forward, (*args, *kwargs.values()))
        d = derivation_with(KERNELS, self.forward, *args, wrt=self.params if self.settled else None, **kwargs)
        for home in written(d.program):
            home.meta["given"].data.copy_(home.meta["val"])
        there.confirm()
        clock.append(time.perf_counter())
        lowered = self._lowered(d, batch)
        self._look_around(lowered, (*args, *kwargs.values()))
        clock.append(time.perf_counter())
        plan = self._written(lowered, args, kwargs, batch)
        clock.append(time.perf_counter())
        words = ("deriving", "lowering", "writing, measuring and comparing with autograd")
        plan.recomputed = self.recomputed
        plan.seconds = {word: end - start for word, start, end in zip(words, clock, clock[1:])}
        return plan

    def _written(self, lowered: Lowered, args: Any, kwargs: Any, batch: Sequence[torch.Tensor]) -> Plan:
        """The plan of the engine that was asked for, or of the fastest; the default where it is not to be had."""
        moments = self._moments(lowered, self.inner)
        if self.inner is not self.optimiser:
            self._moments(lowered, self.optimiser)
        budget = None if self.memory is None else int(self.memory * 1e6)
        witness = Autograd(lowered, self, args, kwargs, batch)
        tried = Tried(lowered, self.inner, moments, sum(map(size_of, batch)), budget, witness.confirm)
        for engine in ENGINES[:-1] if self.engine == "auto" else (self.engine,):
            try:
                tried.add(engine)
            except NotFinite:  # what no engine mends
                raise
            except Exception as error:
                if engine == "torch" or (self.engine != "auto" and not isinstance(error, ChainruleError)):
                    raise
                if self.engine != "auto":
                    told(engine, error)
        if not tried.plans:
            tried.add("torch")
        stays = [
            *lowered.params.values(),
            *(lowered.held[p] for p in lowered.writes),
            *(m for ms in moments.values() for m in ms),
        ]
        given = [t.detach() for t in batch]
        with put_back(stays, self.inner), hardly_moving(self.inner):
            return self._counted(tried.best(lambda plan: plan.call(*given)), lowered)

    def _counted(self, plan: Plan, lowered: Lowered) -> Plan:
        """Move the parameters after every k-th call, where gradients are gathered."""
        gathering, inner = self.inner, plan.call
        if isinstance(gathering, Gathering):
            params = list(lowered.params.values())
            sums = [self.moments[id(p), "Gathering"][0] for p in params]
            own = [self.moments[id(p), type(self.optimiser).__name__] for p in params]

            def call(*batch: torch.Tensor) -> Any:
                loss = inner(*batch)
                gathering.count(params, sums, own)
                return loss

            plan.call = call
        return plan

    def _lowered(self, d: Derivation, batch: Sequence[torch.Tensor]) -> Lowered:
        if self.params is None:
            self.params = self._default_params(d, batch)
        asked = self._moving() if self.settled else [t for t, _ in d.pairs()]
        after = self.inner.clipped if self.inner else list
        lowered = lower(d, batch, asked, after)
        apart(lowered)
        merge(lowered)
        if self.dtype is not None:
            products_in(lowered, self.dtype)
        shorten(lowered)
        lay_out(lowered)
        budget = None if self.memory is None else int(self.memory * 1e6)
        self.recomputed = recompute(
            lowered, self.recompute, budget, lambda: self._peak(lowered), lambda: products_time(lowered.graph)
        )
        self.names |= {id(t): lowered.names[p] for p, t in lowered.params.items()}
        return lowered

    def _look_around(self, lowered: Lowered, given: Sequence[Any]) -> None:
        """Note where the tensors are kept that a plan holds on to."""
        self.names = {id(t): lowered.names.get(n, n.name) for n, t in lowered.held.items()} | self.names
        here, self.modules = surroundings(self.forward, tree_leaves(given))
        known = {id(place.held) for place in self.places}
        read = set(map(id, lowered.held.values()))
        self.places += [
            place
            for place in here
            if id(place.held) not in known and (isinstance(place.held, torch.nn.Module) or id(place.held) in read)
        ]

    def surroundings(self) -> Any:
        """What else a plan takes for granted: where parameters lie, which are frozen, and whether modules train."""
        pointers = tuple((p.data_ptr(), p.stride(), p.shape, p.requires_grad) for p in self.params or ())
        return pointers, tuple(m.training for m in self.modules)

    def _moving(self) -> list[torch.Tensor]:
        """The parameters, without those that were frozen since (`p.requires_grad_(False)`)."""
        params = self.params or []
        for p in params:
            self.asked.setdefault(id(p), p.requires_grad)
        return [p for p in params if p.requires_grad or not self.asked[id(p)]]

    def _peak(self, lowered: Lowered) -> int:
        moments: dict[Any, list[torch.Tensor]] = {p: [] for p in lowered.gradients}
        return Arrangement(lowered, Moves(self.inner, moments) if self.inner else None).memory.peak

    def _default_params(self, d: Derivation, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What forward closes over and asks a gradient for."""
        arguments = set(map(id, batch))
        kept = [t for t, _ in d.pairs() if id(t) not in arguments]
        if self.optimiser is not None and not kept:
            raise ChainruleError(
                "forward reads no tensor that could move, beside its arguments; name them with params="
            )
        return kept

    def _moments(self, lowered: Lowered, optimiser: Optimiser | None) -> dict[Any, list[torch.Tensor]]:
        """The optimiser's tensors for each parameter, made when they are first asked for."""
        found = {}
        for p in lowered.gradients if optimiser else ():
            assert optimiser is not None
            tensor, kind = lowered.params[p], type(optimiser).__name__
            known = self.moments.get((id(tensor), kind))
            if known is None or any(m.shape != tensor.shape or m.dtype != tensor.dtype for m in known):
                made = [torch.zeros_like(tensor).detach() for _ in optimiser.state_names]
                self.moments[id(tensor), kind] = made
            found[p] = self.moments[id(tensor), kind]
        return found

    def name_of(self, parameter: torch.Tensor) -> str:
        """The person's name of a parameter."""
        return self.names.get(id(parameter), "a parameter")

    def named_state(self) -> dict[str, torch.Tensor]:
        """The optimiser's tensors, by name."""
        words = {type(o).__name__: o.state_names for o in (self.optimiser, self.inner) if o is not None}
        return {
            f"{self.names[key]}.{word}": moment
            for (key, kind), found in self.moments.items()
            for word, moment in zip(words[kind], found)
        }
