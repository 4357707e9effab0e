"""What a forward pass leaves in tensors that stay, running statistics, is left there by its compiled step too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.ownership import surroundings
from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from chainrule.compiling.plan import Plan

LARGEST = 1 << 26  # bytes: larger tensors that forward reads are data, and are not looked at
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative; the others are compared to two digits


class Writes:
    """What forward leaves in tensors after one run and after two; `confirm` compares a step.

    Raises ChainruleError where forward writes to a tensor that a step of `lowered` does not write to."""

    def __init__(self, lowered: Lowered, forward: Any, args: Any, kwargs: Any) -> None:
        self.lowered = lowered
        for n, t in lowered.held.items():
            if n in lowered.rewritten:
                raise _unfollowed(lowered.names.get(n, n.name), t)
        self.watched = {n: t for n, t in lowered.held.items() if _is_looked_at(t)}
        self.before = {n: t.detach().clone() for n, t in self.watched.items()}
        self.left: list[dict[fx.Node, torch.Tensor]] = []  # after one run, and after two
        with self._all_put_back():
            self._other_numbers()
            start = {n: t.detach().clone() for n, t in self.watched.items()}
            with torch.no_grad():
                forward(*args, **kwargs)
            for n, t in self.watched.items():
                if n not in lowered.writes and not torch.equal(t.detach(), start[n]) and not t.isnan().any():
                    raise _unfollowed(lowered.names.get(n, n.name), t)
            if not lowered.writes:
                return
            self.left.append({n: lowered.held[n].detach().clone() for n in lowered.writes})
            self._put_back(all_of_them=False)
            self._other_numbers()
            with torch.no_grad():
                forward(*args, **kwargs)
            self.left.append({n: lowered.held[n].detach().clone() for n in lowered.writes})

    def confirm(self, plan: Plan, batch: list[torch.Tensor]) -> None:
        """Raises ChainruleError where the step leaves other numbers."""
        with self._all_put_back():
            for expected in self.left:
                self._other_numbers()
                plan.call(*batch)
                self._put_back(all_of_them=False)  # parameters have moved
                for n, right in expected.items():
                    self._compare(n, right)

    def _compare(self, n: fx.Node, right: torch.Tensor) -> None:
        ours = self.lowered.held[n].detach()
        tolerance = CLOSE.get(right.dtype, 1e-2)
        if not torch.allclose(ours.double(), right.double(), rtol=tolerance, atol=tolerance, equal_nan=True):
            raise ChainruleError(
                f"the compiled step leaves other numbers in {self.lowered.names.get(n, n.name)} {tuple(right.shape)} "
                "than the forward pass, which counts in a way that was frozen (momentum=None of a batch norm?); "
                "give it as an argument, or a number that does not change"
            )

    @contextmanager
    def _all_put_back(self) -> Iterator[None]:
        state = torch.get_rng_state()
        try:
            yield
        finally:
            self._put_back(all_of_them=True)
            torch.set_rng_state(state)

    def _put_back(self, all_of_them: bool) -> None:
        with torch.no_grad():
            for n, t in self.watched.items():
                if all_of_them or n not in self.lowered.writes:
                    t.copy_(self.before[n])

    def _other_numbers(self) -> None:
        """Have the tensors that are no parameters hold other numbers, so that a write to them is seen."""
        with torch.no_grad():
            for n, t in self.watched.items():
                if n not in self.lowered.params and t.is_floating_point():
                    t.mul_(0.5).add_(0.1)


class Unwritten:
    """All tensors that forward may reach, as they were before it ran."""

    def __init__(self, forward: Any, given: Any) -> None:
        places, _ = surroundings(forward, tree_leaves(given))
        self.before = [
            (place.key, place.held, place.held.detach().clone())
            for place in places
            if isinstance(place.held, torch.Tensor) and _is_looked_at(place.held)
        ]

    def confirm(self) -> None:
        """Put back what was changed. Raises ChainruleError where something was."""
        changed = [
            (key, t, was) for key, t, was in self.before if not torch.equal(t.detach(), was) and not _has_nan(was)
        ]
        for _, t, was in changed:
            with torch.no_grad():
                t.copy_(was)
        for key, t, _ in changed:
            raise _unfollowed(str(key or "a tensor of its closure"), t)


def _is_looked_at(t: torch.Tensor) -> bool:
    plain = t.layout is torch.strided and not t.is_meta and not torch._debug_has_internal_overlap(t)
    return plain and t.numel() * t.element_size() <= LARGEST


def _has_nan(t: torch.Tensor) -> bool:
    return bool(t.isnan().any())


def _unfollowed(name: str, tensor: torch.Tensor) -> ChainruleError:
    return ChainruleError(
        f"the forward pass writes to {name} {tuple(tensor.shape)} in a way that a compiled step does not follow (out=, "
        "max_norm=); write it as `t.copy_(new)`, or outside of the forward pass"
    )
