"""Differences of a Function's forward and of its backward: are its gradients right, in float64 and once more?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from chainrule.diagnosis.functions.function_calls import Calls, Gradients, directions, laid, random_like, slope


def first_order_errors(
    calls: Calls, gradients: Gradients, upstreams: Sequence[Tensor] = (), sizes: Gradients | None = None
) -> dict[int, float | None]:
    """How far each gradient is from the forward's differences, relative to its size, or to that of the gradient in `sizes`
    where that is larger; None where they cannot tell."""
    errors: dict[int, float | None] = {}
    for i, g in gradients.items():
        if g is None or not g.numel():
            continue
        errors[i] = None
        resolved = 0
        for v in directions(calls.values[i], 5 + i, dense=2, sparse=6):

            def output(t: float, i: int = i, v: Tensor = v) -> float:
                outputs = calls.forward(_moved(calls.values, i, t * v)).outputs
                weights = upstreams or calls.upstreams(outputs)
                return sum(float((o * u).detach().sum()) for o, u in zip(outputs, weights, strict=True))

            expected, size = float((g * v).sum()), float((g * v).norm())
            if sizes is not None and (other := sizes.get(i)) is not None:
                size = max(size, float((other * v).norm()))
            found = slope(output, size, 1e-10)
            if found is not None and size:
                resolved += 1
                errors[i] = max(errors[i] or 0.0, abs(found - expected) / size)
            if resolved == 2:
                break
    return errors


def second_order_error(
    calls: Calls,
    gradients: Gradients,
    reference: Callable[..., Any] | None,
    plain: bool,
    honest: bool,
    tolerance: float,
) -> list[int]:
    """The inputs (and -1 for the upstreams) with respect to which the second derivatives are wrong.

    The truth is the reference's where its gradients are the Function's, otherwise differences of the Function's own
    gradients (`plain`: all is float64), so that a gradient that is meant to be another one is no mistake; where the
    first gradients are not the derivative of the forward (not `honest`), the upstreams alone are looked at, since
    what was saved then depends on the inputs in two ways. A second derivative that raises is not silent, and right.
    Raises Failed where the first backward raises under create_graph=True.
    """
    wanted = [i for i, g in gradients.items() if g is not None and g.numel()]
    if (
        not wanted
        or any(t.is_complex() for t in calls.forward().outputs)
        or any(calls.values[i].is_complex() for i in calls.floating)
    ):
        return []
    weights = {i: random_like(gradients[i], 101 + i) for i in wanted}  # type: ignore[arg-type]
    found = _second(calls, wanted, weights)
    if found is None:
        return []
    truth = _reference_second(calls, wanted, weights, gradients, reference, tolerance) if reference else None
    if truth is not None:
        scale = max(float(t.abs().max()) for t in truth.values() if t.numel())
        return [i for i in truth if float((found[i] - truth[i]).abs().max()) > max(tolerance, 1e-6) * scale]
    if not plain:
        return []
    return [i for i in ([*wanted, -1] if honest else [-1]) if _slope_differs(calls, i, weights, gradients, found[i])]


def _contracted(gradients: Gradients, weights: dict[int, Tensor]) -> Tensor:
    terms = [(gradients[i] * w).sum() for i, w in weights.items() if gradients[i] is not None]  # type: ignore[operator]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _derivatives(total: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    if not total.requires_grad:
        return [torch.zeros_like(t) for t in leaves]
    total.backward()  # type: ignore[no-untyped-call]  # grad(total, leaves) would pass by what once_differentiable leaves to raise
    return [torch.zeros_like(t) if t.grad is None else t.grad for t in leaves]


def _second(calls: Calls, wanted: list[int], weights: dict[int, Tensor]) -> dict[int, Tensor] | None:
    """The second derivatives that autograd finds in the Function; None where it says that it cannot."""
    forward = calls.forward(wanted=wanted)
    upstreams = [u.requires_grad_() for u in calls.upstreams(forward.outputs)]
    first = calls.backward(forward, [u.clone() for u in upstreams], create_graph=True)
    try:
        with calls.quietly():
            found = _derivatives(_contracted(first, weights), [*forward.leaves.values(), *upstreams])
    except Exception:  # whatever the person's code or once_differentiable raises
        return None
    return _by_place(found, wanted)


def _by_place(found: list[Tensor], wanted: list[int]) -> dict[int, Tensor]:
    upstreams = torch.cat([t.detach().flatten() for t in found[len(wanted) :]])
    return {**{i: t.detach() for i, t in zip(wanted, found, strict=False)}, -1: upstreams}


def _reference_second(
    calls: Calls,
    wanted: list[int],
    weights: dict[int, Tensor],
    gradients: Gradients,
    reference: Callable[..., Any],
    tolerance: float,
) -> dict[int, Tensor] | None:
    """The reference's second derivatives; None where its first ones are not the Function's."""
    values = [laid(a, "contiguous") if isinstance(a, Tensor) else a for a in calls.values]
    leaves = [values[i].requires_grad_() for i in wanted]
    inputs = [a.clone() if isinstance(a, Tensor) else a for a in values]
    try:
        with calls.quietly(), torch.enable_grad():
            every = reference(*inputs)
            every = every if isinstance(every, tuple) else (every,)
            outputs = [t for t in every if isinstance(t, Tensor) and t.requires_grad]
            upstreams = [u.requires_grad_() for u in calls.upstreams(outputs)]
            first = torch.autograd.grad(outputs, leaves, upstreams, create_graph=True, allow_unused=True)
            for i, g in zip(wanted, first, strict=True):
                mine = gradients[i]
                if g is None or mine is None or not torch.allclose(g, mine, rtol=tolerance, atol=tolerance):
                    return None
            found = _derivatives(_contracted(dict(zip(wanted, first, strict=True)), weights), [*leaves, *upstreams])
    except Exception:  # a reference that autograd cannot follow is no reference
        return None
    return _by_place(found, wanted)


def _slope_differs(calls: Calls, i: int, weights: dict[int, Tensor], gradients: Gradients, found: Tensor) -> bool:
    """Whether differences of the Function's gradients tell another slope than `found`, along some direction."""
    wanted = list(weights)
    size = float(torch.cat([(gradients[j] * w).flatten() for j, w in weights.items()]).norm())  # type: ignore[operator]
    base = torch.cat([u.flatten() for u in calls.upstreams(calls.forward().outputs)])
    resolved = 0
    for v in directions(base if i < 0 else calls.values[i], 23 + i, dense=2, sparse=6):

        def contracted(t: float, v: Tensor = v) -> float:
            values = calls.values if i < 0 else _moved(calls.values, i, t * v)
            forward = calls.forward(values, wanted)
            upstreams = calls.upstreams(forward.outputs)
            if i < 0:
                steps = torch.split(v, [u.numel() for u in upstreams])
                upstreams = [u + t * s.reshape(u.shape) for u, s in zip(upstreams, steps, strict=True)]
            return float(_contracted(calls.backward(forward, upstreams), weights))

        expected = float((found * v).sum())
        truth = slope(contracted, size, 1e-7)
        if truth is None:
            continue
        if abs(truth - expected) > 1e-4 * max(abs(truth), abs(expected)) + 1e-5 * size:
            return True
        resolved += 1
        if resolved == 2:
            break
    return False


def _moved(values: list[Any], i: int, step: Tensor) -> list[Any]:
    return [a + step if j == i else a for j, a in enumerate(values)]
