"""Mistakes with whole Jacobians: taken as diagonal, or applied once more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import DROPPED, Mutation
from chainrule.diagnosis.explaining.search import Search, Trial
from chainrule.diagnosis.truth.case import same

_LARGE = 600  # elements above which a diagonal is not looked for: it takes a run for each
_Activation = Callable[[torch.Tensor], torch.Tensor]
_ELEMENTWISE: tuple[_Activation, ...] = (torch.sigmoid, torch.tanh, torch.relu)
_MIXING: tuple[_Activation, ...] = (lambda z: z.softmax(-1), lambda z: z.softmax(0))


def mistaken(search: Search, above: list[fx.Node], value: fx.Node) -> list[Mutation]:
    """The causes "diagonal-jacobian" and "double-applied", where they give the person's numbers.

    `above` are the gradients that the right one, of `value`, is computed from.
    """
    found = []
    root = search.root
    if all(_is_diagonal(above, t, search) for t in search.trials):
        found.append(Mutation(root, root, "diagonal-jacobian", DROPPED - 0.1))
    if all(_is_applied_again(above, value, t, search) for t in search.trials):
        found.append(Mutation(root, root, "double-applied", DROPPED - 0.1))
    return found


def _is_diagonal(sources: list[fx.Node], trial: Trial, search: Search) -> bool:
    """Whether the person's numbers are the diagonal of the Jacobian times the upstream gradient."""
    for above in sources:
        upstream = trial.values.get(above)
        if not isinstance(upstream, torch.Tensor) or upstream.shape != trial.goal.shape or upstream.numel() > _LARGE:
            continue
        diagonal = torch.zeros_like(trial.goal).flatten()
        for element in range(upstream.numel()):
            one = torch.zeros_like(upstream).flatten()
            one[element] = 1.0
            back = search.outcome([(above, one.view_as(upstream))], trial)
            if not isinstance(back, torch.Tensor) or back.shape != trial.goal.shape:
                return False
            diagonal[element] = back.flatten()[element]
        by_element = diagonal.view_as(trial.goal) * upstream
        if same(trial.goal, by_element) and not same(trial.goal, trial.values[search.root]):
            return True
    return False


def _is_applied_again(sources: list[fx.Node], of: fx.Node, trial: Trial, search: Search) -> bool:
    """Whether the person's numbers are the right ones, sent back through an activation (or this step) once more."""
    right = trial.values[search.root]
    for above in sources:
        if trial.values.get(above) is not None and trial.values[above].shape == right.shape:
            again = search.outcome([(above, right)], trial)
            if isinstance(again, torch.Tensor) and same(trial.goal, again) and not same(trial.goal, right):
                return True
    value = trial.values.get(of)
    if not isinstance(value, torch.Tensor) or value.shape != right.shape or value.ndim == 0 or value.is_complex():
        return False
    if same(trial.goal, right):
        return False
    backs = [_through(f, value, right) for f in (*_ELEMENTWISE, *_MIXING)]
    if value.numel() <= _LARGE:
        backs += [_as_if_diagonal(f, value, right) for f in _MIXING]
    return any(same(trial.goal, back) for back in backs)


def _through(function: _Activation, value: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """`upstream` sent back through a function."""
    with torch.enable_grad():
        leaf = value.detach().clone().requires_grad_()
        (back,) = torch.autograd.grad(function(leaf), leaf, upstream)
    return back


def _as_if_diagonal(function: _Activation, value: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """The same for a function that mixes elements, as if its Jacobian were diagonal."""
    jacobian = torch.autograd.functional.jacobian(function, value.detach())  # type: ignore[no-untyped-call]
    diagonal: torch.Tensor = jacobian.reshape(value.numel(), value.numel()).diagonal()
    return diagonal.view_as(upstream) * upstream
