"""Mistakes with whole Jacobians: taken as diagonal, or applied once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from chainrule.diagnosis.case import same
from chainrule.diagnosis.mutations import DROPPED, Mutation
from chainrule.diagnosis.search import Search, Trial

if TYPE_CHECKING:
    from chainrule.diagnosis.diagnose import Diagnoser

_LARGE = 600  # elements above which a diagonal is not looked for: it takes a run for each
_AGAIN = {
    "softmax": lambda z: z.softmax(-1),
    "softmax over rows": lambda z: z.softmax(0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


def mistaken(diagnoser: Diagnoser, trials: list[Trial], search: Search) -> list[Mutation]:
    """The causes "diagonal-jacobian" and "double-applied", where they give the person's numbers."""
    found = []
    root = search.root
    if all(_is_diagonal(diagnoser, t, search) for t in trials):
        found.append(Mutation(root, root, "diagonal-jacobian", DROPPED - 0.1))
    if all(_is_applied_again(diagnoser, t, search) for t in trials):
        found.append(Mutation(root, root, "double-applied", DROPPED - 0.1))
    return found


def _is_diagonal(diagnoser: Diagnoser, trial: Trial, search: Search) -> bool:
    """Whether the person's numbers are the diagonal of the Jacobian times the upstream gradient."""
    for above in diagnoser._given_above:
        upstream = trial.values.get(above)
        if not isinstance(upstream, torch.Tensor) or upstream.shape != trial.goal.shape or upstream.numel() > _LARGE:
            continue
        diagonal = torch.zeros_like(trial.goal).flatten()
        for element in range(upstream.numel()):
            one = torch.zeros_like(upstream).flatten()
            one[element] = 1.0
            back = search.with_value(above, one.view_as(upstream), trial)
            if not isinstance(back, torch.Tensor) or back.shape != trial.goal.shape:
                return False
            diagonal[element] = back.flatten()[element]
        by_element = diagonal.view_as(trial.goal) * upstream
        if same(trial.goal, by_element) and not same(trial.goal, trial.values[search.root]):
            return True
    return False


def _is_applied_again(diagnoser: Diagnoser, trial: Trial, search: Search) -> bool:
    """Whether the person's numbers are the right ones, sent back through an activation (or this step) once more."""
    right = trial.values[search.root]
    for above in diagnoser._given_above:
        if trial.values.get(above) is not None and trial.values[above].shape == right.shape:
            again = search.with_value(above, right, trial)
            if isinstance(again, torch.Tensor) and same(trial.goal, again) and not same(trial.goal, right):
                return True
    value = trial.values.get(diagnoser.claim.value)
    if not isinstance(value, torch.Tensor) or value.shape != right.shape or value.ndim == 0:
        return False
    for function in _AGAIN.values():
        with torch.enable_grad():
            leaf = value.detach().clone().requires_grad_()
            (back,) = torch.autograd.grad(function(leaf), leaf, right)
        if same(trial.goal, back) and not same(trial.goal, right):
            return True
        if same(trial.goal, right * _slope(function, value)) and not same(trial.goal, right):
            return True
    return False


def _slope(function: Any, value: torch.Tensor) -> torch.Tensor:
    """The diagonal of an activation's Jacobian; of softmax, p (1 - p)."""
    out = function(value)
    if function in (torch.sigmoid, torch.tanh, torch.relu):
        return {torch.sigmoid: out * (1 - out), torch.tanh: 1 - out * out, torch.relu: (value > 0).double()}[function]
    return out * (1 - out)
