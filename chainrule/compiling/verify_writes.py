"""What a forward pass leaves in tensors that stay, running statistics, is left there by its compiled step too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from chainrule.compiling.plan import Plan

LARGEST = 1 << 26  # bytes: larger tensors that forward reads are data, and are not looked at
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative; the others are compared to two digits


def confirm_writes(plan: Plan, forward: Any, args: Any, kwargs: Any, batch: list[torch.Tensor]) -> None:
    """Compare what forward, and what the step, leave in tensors after one run and after two.

    Raises ChainruleError where they differ, or where forward writes to a tensor that the step does not write to."""
    lowered = plan.lowered
    for n, t in lowered.held.items():
        if n in lowered.rewritten:
            raise _unfollowed(lowered.names.get(n, n.name), t)
    watched = {
        n: t
        for n, t in lowered.held.items()
        if t.numel() * t.element_size() <= LARGEST and not torch._debug_has_internal_overlap(t)
    }
    before = {n: t.detach().clone() for n, t in watched.items()}

    def put_back(all_of_them: bool) -> None:
        with torch.no_grad():
            for n, t in watched.items():
                if all_of_them or n not in lowered.writes:
                    t.copy_(before[n])

    def other_numbers() -> None:
        """Have the tensors that are no parameters hold other numbers, so that a write to them is seen."""
        with torch.no_grad():
            for n, t in watched.items():
                if n not in lowered.params and t.is_floating_point():
                    t.mul_(0.5).add_(0.1)

    state = torch.get_rng_state()
    try:
        other_numbers()
        start = {n: t.detach().clone() for n, t in watched.items()}
        with torch.no_grad():
            forward(*args, **kwargs)
        for n, t in watched.items():
            if n not in lowered.writes and not torch.equal(t.detach(), start[n]) and not t.isnan().any():
                raise _unfollowed(lowered.names.get(n, n.name), t)
        if not lowered.writes:
            return
        once = {n: lowered.held[n].detach().clone() for n in lowered.writes}
        put_back(all_of_them=False)
        other_numbers()
        with torch.no_grad():
            forward(*args, **kwargs)
        twice = {n: lowered.held[n].detach().clone() for n in lowered.writes}
        put_back(all_of_them=True)
        torch.set_rng_state(state)
        for expected in (once, twice):
            other_numbers()
            plan.call(*batch)
            put_back(all_of_them=False)  # parameters have moved
            for n, right in expected.items():
                ours = lowered.held[n].detach()
                tolerance = CLOSE.get(right.dtype, 1e-2)
                if not torch.allclose(ours.double(), right.double(), rtol=tolerance, atol=tolerance, equal_nan=True):
                    raise ChainruleError(
                        f"the compiled step leaves other numbers in {lowered.names.get(n, n.name)} {tuple(right.shape)} "
                        "than the forward pass, which counts in a way that was frozen (momentum=None of a batch norm?); "
                        "give it as an argument, or a number that does not change"
                    )
    finally:
        put_back(all_of_them=True)
        torch.set_rng_state(state)


def _unfollowed(name: str, tensor: torch.Tensor) -> ChainruleError:
    return ChainruleError(
        f"the forward pass writes to {name} {tuple(tensor.shape)} in a way that a compiled step does not follow (out=, "
        "max_norm=); write it as `t.copy_(new)`, or outside of the forward pass"
    )
