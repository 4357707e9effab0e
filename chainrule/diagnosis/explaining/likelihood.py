"""Which of several changes that give the right numbers is the likeliest."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import fx

from chainrule.diagnosis.explaining.search import FAILURES, Search
from chainrule.diagnosis.truth.case import Case, same
from chainrule.run import double, run

_ACTIVATED = 12  # values of the forward pass
_COMPARED = 12  # changes that give the right numbers
_STEPS = 4000  # of the right gradient, run to see how steeply its values depend on one another


def compare_locals(case: Case, mine: list[fx.Node], search: Search, right: list[fx.Node], above: list[fx.Node]) -> None:
    """Say of the nearest changes how many values on the way they leave that the right gradient does not have.

    That which makes the values on the way right too is likelier. `mine` are the nodes of the person's line, `right`
    those of the right gradient, computed from the gradients `above`.
    """
    trial = search.trials[0]
    named = [n for n in mine if n.meta.get("name") and n is not search.root and is_matrix(trial.values.get(n))]
    named = [n for n in named if not _is_kept(n)]
    if not named or len(search.best) < 2:
        return
    known = right_values(case)
    for slope in (*_slopes(case, right, above), *activations(case)):
        known.setdefault(slope.numel(), []).append(slope.flatten())
    before = [n for n in named if occurs(trial.values[n], known)]
    compared = search.best[:_COMPARED]
    with torch.no_grad():
        for mutation in compared:
            after = {n: search.outcome(mutation.changes, trial, n) for n in named}
            moved = [n for n in before if not same(after[n], trial.values[n])]
            natural = sum(is_matrix(v) and occurs(v, known) for v in after.values())
            mutation.strange = len(named) - natural + len(moved)
    fewest = min(m.strange for m in compared)
    for mutation in compared:
        mutation.strange -= fewest


def _is_kept(node: fx.Node) -> bool:
    """Whether it is a value of the forward pass, under the name that it has there: out of a cache."""
    of = node.meta.get("same_as")
    return of is not None and of.meta.get("name") == node.meta["name"]


def right_values(case: Case) -> dict[int, list[torch.Tensor]]:
    """What the right backward pass computes, by the number of elements, in whatever shape."""
    found: dict[int, list[torch.Tensor]] = {}
    for node in case.graph.nodes:
        value = case.here.values.get(node)
        if node.meta["phase"] == "backward" and isinstance(value, torch.Tensor) and is_matrix(value):
            found.setdefault(value.numel(), []).append(value.flatten())
    return found


def _slopes(case: Case, right: list[fx.Node], above: list[fx.Node]) -> Iterator[torch.Tensor]:
    """How steeply the values of the right gradient depend on one another, and on those above: `1 - t**2`, without the
    gradient that it is multiplied by."""
    values = case.here.values
    inner = [n for n in right if n in set(case.base.gradients.values())]
    if len(right) * (2 * len(inner) + 1) > _STEPS:
        return
    none = {n: torch.zeros_like(values[n]) for n in above if isinstance(values.get(n), torch.Tensor)}
    given = {n: v for n, v in values.items() if n not in set(right)} | none
    try:
        whole = run(right, given | {n: torch.ones_like(v) for n, v in none.items()}, double)
        runs = [whole]
        for node in inner:
            for source in (torch.ones_like(whole[node]), whole[node]):
                runs.append(run([n for n in right if n is not node], given | {node: source}, double))
    except FAILURES:
        return
    for values in runs:
        found = (values.get(node) for node in right)
        yield from (v for v in found if isinstance(v, torch.Tensor) and is_matrix(v) and bool(v.any()))


def activations(case: Case) -> Iterator[torch.Tensor]:
    """What people often compute of a value of the forward pass: `p = z.softmax(1)`."""
    values = (case.here.values.get(n) for n in case.names if n in case.forward and n.op != "placeholder")
    for value in islice((v for v in values if is_matrix(v)), _ACTIVATED):
        assert isinstance(value, torch.Tensor)
        yield from (value.sigmoid(), value.tanh(), value.exp(), value.relu())
        yield from (value.softmax(axis) for axis in range(value.ndim))


def occurs(value: torch.Tensor, known: dict[int, list[torch.Tensor]]) -> bool:
    return any(same(value.flatten(), other) for other in known.get(value.numel(), ()))


def is_matrix(value: object) -> bool:
    """Whether it is a value of several numbers, which can be told from others."""
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point and value.numel() > 1
