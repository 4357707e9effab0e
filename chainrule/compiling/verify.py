"""A step is run once beside autograd before it is given; everything it wrote is put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.optimisers import Optimiser
from chainrule.compiling.verify_writes import Writes
from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from chainrule.compiling.plan import Plan
    from chainrule.compiling.planner import Planner

# Two right programs may sum in another order: an error, relative to the largest number of a gradient.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
ROUNDED = 0.25  # the same of their norms, where products are computed in fewer bits

# A gradient may be the difference of large terms that cancel (a bias before a batch norm): what is left is rounding,
# relative to the largest number of all gradients.
NOISE = {torch.float64: 1e-12, torch.float32: 3e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


# Of the noise: by how many units everything is moved, how often, and how many times what is found is allowed.
LAST_PLACES, DRAWS, SPREAD = 4.0, 3, 10.0


class Autograd:
    """What autograd says of a batch, asked once; `confirm` compares the plans for it."""

    def __init__(
        self, lowered: Lowered, planner: Planner, args: Any, kwargs: Any, batch: Sequence[torch.Tensor]
    ) -> None:
        self.lowered, self.planner, self.optimiser = lowered, planner, planner.inner
        params, optimiser = lowered.params, planner.inner
        self.moments = (
            {p: planner.moments[id(t), type(optimiser).__name__] for p, t in params.items()} if optimiser else {}
        )
        self.stays = [
            *(params.values() if optimiser else ()),
            *(lowered.held[p] for p in lowered.writes),
            *(m for ms in self.moments.values() for m in ms),
        ]
        self.batch = [t.detach() for t in batch]
        self.given = args, kwargs
        self.coarsest = _coarsest(lowered)
        self.expected: list[torch.Tensor] | None = None
        with put_back(self.stays, optimiser):
            found = _gradients(planner.forward, args, kwargs, list(params.values()))
        if found is None:
            return
        self.loss, self.raw = found
        self.expected = self.raw
        with put_back(self.stays, optimiser):
            self.writes = Writes(lowered, planner.forward, args, kwargs)
        if optimiser is not None:
            self.expected = list(optimiser.clipped(self.raw))

    def confirm(self, plan: Plan) -> None:
        """Take one step. Raises ChainruleError where a parameter moves otherwise than autograd says."""
        if self.expected is None:
            return
        lowered, planner, optimiser, params = self.lowered, self.planner, self.optimiser, self.lowered.params
        with put_back(self.stays, optimiser):
            self.writes.confirm(plan, self.batch)
        with put_back(self.stays, optimiser):
            state = torch.get_rng_state()
            if optimiser is None:
                loss, gradients = plan.call(*self.batch)
                found = list(gradients.values())
            else:
                loss, found = _moved_by(plan, optimiser, self.batch, list(params.values()), list(self.moments.values()))
            torch.set_rng_state(state)  # for the next plan
        expected, coarsest = self.expected, self.coarsest
        size, slack = _norm, 0.02  # of products in another dtype, whose rounding may switch a relu
        if planner.dtype is None:
            size, slack = _largest, NOISE[coarsest]
        largest = max(map(size, expected), default=0.0)
        tolerance = ROUNDED if planner.dtype is not None else TOLERANCE[coarsest]
        for p, right, ours in zip(params, expected, found):
            rounding = 4 * torch.finfo(coarsest).eps * _largest(params[p].detach())
            error = size((right - ours).masked_fill(~torch.isfinite(right) & ~torch.isfinite(ours), 0.0))
            allowed = tolerance * size(right) + rounding + slack * largest
            if not error <= allowed and not error <= allowed + self.noise[1]:
                raise ChainruleError(
                    f"the compiled step moves {lowered.names[p]} {tuple(right.shape)} otherwise than autograd says: its "
                    f"gradient is wrong by {error:.2g} where the largest entry is {_largest(right):.2g}; use another "
                    "engine, and please report it"
                )
        off = abs(loss.item() - self.loss)
        if isfinite(self.loss) and not off <= tolerance * abs(self.loss) and not off <= self.noise[0]:
            raise ChainruleError(
                f"the compiled step gives the loss {loss.item():.6g} where autograd gives {self.loss:.6g}; use another "
                "engine, and please report it"
            )

    @cached_property
    def noise(self) -> tuple[float, float]:
        """How far rounding may move the loss, and a gradient: where terms cancel, that is all that is left of them.

        It is what autograd itself finds when everything is moved by as much as its last places.
        """
        lowered, planner, (args, kwargs) = self.lowered, self.planner, self.given
        params = list(lowered.params.values())
        known = {id(p) for p in params}
        loss = gradient = 0.0
        draw = torch.Generator().manual_seed(0)
        step = LAST_PLACES * torch.finfo(self.coarsest if planner.dtype is None else planner.dtype).eps

        def moved(t: Any) -> Any:
            if not isinstance(t, torch.Tensor) or not t.is_floating_point():
                return t
            t = t.detach()
            return t + step * t * torch.randn(t.shape, generator=draw).to(t)

        for _ in range(DRAWS):
            with put_back(params + self.stays, planner.inner):
                with torch.no_grad():
                    for p in params:
                        p.copy_(moved(p))
                given = tree_map(lambda v: v if id(v) in known else moved(v), (args, kwargs))
                found = _gradients(planner.forward, given[0], given[1], params)
            assert found is not None
            loss = max(loss, abs(found[0] - self.loss))
            gradient = max(gradient, *(_norm(g - right) for g, right in zip(found[1], self.raw)))
        return SPREAD * loss, SPREAD * gradient


def _coarsest(lowered: Lowered) -> torch.dtype:
    """The type of fewest digits that the step computes in: a double may be used through `.float()`."""
    values = (n.meta.get("val") for n in lowered.graph.nodes)
    types = {v.dtype for v in values if isinstance(v, torch.Tensor)} & TOLERANCE.keys()
    return max(types, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)


def _largest(value: torch.Tensor) -> float:
    return float(value.abs().amax()) if value.numel() else 0.0


def _norm(value: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(value))


def _gradients(
    forward: Any, args: Any, kwargs: Any, params: list[torch.Tensor]
) -> tuple[float, list[torch.Tensor]] | None:
    """Autograd's loss and gradients; None where a parameter is no leaf, so that autograd cannot be asked."""
    asked = [p.requires_grad for p in params]
    if not all(p.is_leaf for p in params):
        return None
    state = torch.get_rng_state()
    try:
        for p in params:
            p.requires_grad_()
        with torch.enable_grad():
            loss = forward(*args, **kwargs)
            found = torch.autograd.grad(loss, params, allow_unused=True)
    finally:
        torch.set_rng_state(state)
        for p, was in zip(params, asked):
            p.requires_grad_(was)
    dense = (g.to_dense() if g is not None and g.is_sparse else g for g in found)
    return loss.item(), [torch.zeros_like(p) if g is None else g.detach() for p, g in zip(params, dense)]


def _moved_by(
    plan: Plan,
    optimiser: Optimiser,
    batch: list[torch.Tensor],
    params: list[torch.Tensor],
    moments: list[list[torch.Tensor]],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss of a step, and the gradients that it used, as its optimiser's formula gives them back."""
    lr, steps = optimiser.lr, optimiser.steps
    before = [p.detach().clone() for p in params]
    state = torch.get_rng_state()
    try:
        optimiser.lr, optimiser.steps = 1.0, 0
        for moment in (m for each in moments for m in each):
            moment.zero_()
        loss = plan.call(*batch)
        return loss, [optimiser.gradient_of(*each) for each in zip(before, params, moments)]
    finally:
        torch.set_rng_state(state)
        optimiser.lr, optimiser.steps = lr, steps


@contextmanager
def put_back(tensors: list[torch.Tensor], optimiser: Optimiser | None) -> Iterator[None]:
    """Give tensors, and the count of steps, the values back that they had."""
    kept, steps = [t.detach().clone() for t in tensors], optimiser.steps if optimiser else 0
    try:
        yield
    finally:
        if optimiser:
            optimiser.steps = steps
        with torch.no_grad():
            for tensor, value in zip(tensors, kept):
                tensor.copy_(value)


@contextmanager
def hardly_moving(optimiser: Optimiser | None) -> Iterator[None]:
    """Steps that take as long as ever, and do not run away from where they began."""
    lr = optimiser.lr if optimiser else 0.0
    try:
        if optimiser:
            optimiser.lr = 1e-20  # products are skipped for 0
        yield
    finally:
        if optimiser:
            optimiser.lr = lr


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the generator of random numbers as it was."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        yield
