"""Lines that multiply a gradient by another factor than they should, element by element."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.truth.case import same
from chainrule.run import double, run


def other_factor(
    mine: list[fx.Node], right: list[fx.Node], carried: Iterable[fx.Node], values: Mapping[fx.Node, Any]
) -> str:
    """The cause, where the last of `mine` and the last of `right` are one gradient times a factor each; else "".

    `carried` are the gradients that the person's nodes read, or compute. `values` are those of all nodes.
    """
    goal = values.get(right[-1]) if mine and right else None
    if not isinstance(goal, torch.Tensor) or getattr(values.get(mine[-1]), "shape", None) != goal.shape:
        return ""
    given = {r: values.get(r) for n in right for r in (n, *n.all_input_nodes) if r is not right[-1]}
    for node in carried:
        value = values.get(node)
        if node is mine[-1] or not isinstance(value, torch.Tensor) or not _stretches(value, goal):
            continue
        twin = next((r for r, v in given.items() if getattr(v, "shape", None) == value.shape and same(v, value)), None)
        if twin is None:
            continue
        theirs, ours = _factor(mine, node, values), _factor(right, twin, values)
        if theirs is None or ours is None or same(theirs, ours):
            continue
        if _is_one(theirs):
            return "missing-factor"
        if not _is_one(ours) and not same(theirs, ours * float((theirs * ours).sum() / (ours * ours).sum())):
            return "wrong-factor"
    return ""


def _stretches(value: torch.Tensor, goal: torch.Tensor) -> bool:
    pairs = zip(value.shape, goal.shape, strict=False)
    return value.ndim == goal.ndim and value.numel() > 1 and all(a in (b, 1) for a, b in pairs)


def _is_one(factor: torch.Tensor) -> bool:
    return bool((factor - 1).abs().max() < 1e-9)


def _factor(nodes: list[fx.Node], source: fx.Node, values: Mapping[fx.Node, Any]) -> torch.Tensor | None:
    """What the last node is `source` times, element by element; None where it is something else."""
    root, value = nodes[-1], values[source]
    ones = torch.ones_like(value)
    generator = torch.Generator().manual_seed(77)
    drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device)
    computed = set(nodes)
    fixed = {n: v for n, v in values.items() if n not in computed}
    try:
        with torch.no_grad():
            factor, other = (run(nodes, fixed | {source: given}, double)[root] for given in (ones, drawn))
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
        return None
    linear = same(other, factor * drawn) and same(values[root], factor * value)
    return factor if linear and bool(factor.any()) else None
