"""The right gradient as a sum of terms, and the person's as another combination of the same terms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import DROPPED, Mutation
from chainrule.diagnosis.explaining.search import Search, Trial
from chainrule.diagnosis.reading.paths import joins_paths, lost_from
from chainrule.diagnosis.truth.case import same

_MOST = 12  # terms


def combined(search: Search, trials: list[Trial]) -> list[Mutation]:
    """The mistake, where the person's numbers are the right terms with other weights: some left out, some doubled."""
    nodes = _terms(search)
    if not 2 <= len(nodes) <= _MOST:
        return []
    weights = _weights(search, nodes, trials[0])
    if weights is None or all(abs(w - 1) < 1e-6 for w in weights):
        return []
    for trial in trials[1:]:
        parts = _parts(search, nodes, trial)
        if parts is None or not same(sum(w * p for w, p in zip(weights, parts, strict=True)), trial.goal):
            return []
    lost = [n for n, w in zip(nodes, weights, strict=True) if abs(w) < 1e-6]
    twice = [n for n, w in zip(nodes, weights, strict=True) if abs(w - 2) < 1e-6]
    others = [w for w in weights if min(abs(w), abs(w - 1)) > 1e-6]
    if len(lost) == len(nodes):
        return []
    sums = [u for n in (*lost, *twice) for u in n.users]
    cause = lost_from(sums) if not others else "wrong-term-scale"
    if others and len(others) == len(twice) and joins_paths(sums):
        cause = "double-counted-path"
    at = (lost or twice or nodes)[0]
    return [Mutation(at, at, cause, DROPPED - 0.05)]


def several_lost(search: Search) -> Iterator[Mutation]:
    """Two or three terms left out at once, also where one is part of another: both paths of a norm."""
    carries, sketches = search.around.carries, search.around.sketches
    sums = [n for n in search.nodes if n.meta["operation"] in ("add", "sub") and len(n.args) == 2 and n in carries]
    operands = [o for n in sums for o in n.args if isinstance(o, fx.Node) and o in carries and o in search.position]
    operands = list(dict.fromkeys(operands))[:_MOST]
    for count in (2, 3):
        for chosen in combinations(operands, count):
            changes = [(n, sketches.operation("mul", 0, n)) for n in chosen]
            cause = lost_from(u for n in chosen for u in n.users)
            yield Mutation(*changes[0], cause, DROPPED, changes=changes)


def _terms(search: Search) -> list[fx.Node]:
    """The operands of the sums on the way to the root that are no sums of such operands themselves."""
    carries = search.around.carries
    sums = [n for n in search.nodes if n.meta["operation"] in ("add", "sub") and len(n.args) == 2 and n in carries]
    found = []
    for node in sums:
        for operand in node.args:
            if isinstance(operand, fx.Node) and operand in carries and _above(operand, search).isdisjoint(sums):
                found.append(operand)
    return [n for n in dict.fromkeys(found) if n in search.position]


def _above(node: fx.Node, search: Search) -> set[fx.Node]:
    """A node and what it is computed from, in the slice."""
    found, stack = set[fx.Node](), [node]
    while stack:
        current = stack.pop()
        if current in search.position and current not in found:
            found.add(current)
            stack.extend(current.all_input_nodes)
    return found


def _parts(search: Search, nodes: list[fx.Node], trial: Trial) -> list[torch.Tensor] | None:
    """What each term contributes to the root; None if these are not all of it."""
    whole = trial.values.get(search.root)
    parts = []
    for node in nodes:
        without = search.outcome([(node, torch.zeros_like(trial.values[node]))], trial)
        if not isinstance(without, torch.Tensor) or not isinstance(whole, torch.Tensor) or without.shape != whole.shape:
            return None
        parts.append(whole - without)
    return parts if same(torch.stack(parts).sum(0), whole) else None  # type: ignore[arg-type]


def _weights(search: Search, nodes: list[fx.Node], trial: Trial) -> list[float] | None:
    parts = _parts(search, nodes, trial)
    if parts is None or trial.goal.numel() < len(parts) or parts[0].shape != trial.goal.shape:
        return None
    columns = torch.stack([p.flatten() for p in parts], 1)
    if not bool(torch.isfinite(columns).all()):
        return None
    sizes = columns.norm(dim=0)
    if bool((sizes < 1e-12 * sizes.max()).any()) or int(torch.linalg.matrix_rank(columns / sizes)) < len(parts):
        return None
    found = torch.linalg.lstsq(columns, trial.goal.flatten()[:, None]).solution.flatten()
    return [float(w) for w in found] if same((columns @ found).view_as(trial.goal), trial.goal) else None
