"""The factors of a gradient: what the right line multiplies by, and lines that multiply by another one than they should."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.truth.case import same
from chainrule.diagnosis.truth.sketch import Sketches, is_tensor
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


def factors_of(right: list[fx.Node], moved: Container[fx.Node], sketches: Sketches) -> list[fx.Node]:
    """What the right gradient is multiplied by: its own nodes that do not depend on the gradients above, as those that
    `moved` holds do; and what several steps multiply by together, which is no value of its own: `p * (1 - p)`."""
    found = [n for n in right if n not in moved and is_tensor(n)]
    factors = [a for n in right if n in moved and n.meta["operation"] in ("mul", "div") for a in n.args]
    found += [a for a in dict.fromkeys(factors) if is_tensor(a) and a not in moved and a not in found]  # type: ignore[misc]
    last: dict[Any, fx.Node] = {}  # the factor that a product ends with, and all that it has
    whole: dict[Any, fx.Node] = {}
    for node in right:
        operation = node.meta["operation"]
        if operation not in ("mul", "div") or node not in moved:
            continue
        turned = operation == "mul" and node.args[0] not in moved
        carried, factor = node.args[::-1] if turned else node.args
        if carried not in moved or not isinstance(factor, fx.Node) or not is_tensor(factor) or factor in moved:
            continue
        if carried in whole:
            found.append(sketches.operation(operation, whole[carried], factor))
            whole[node] = found[-1]
            if operation == "mul" and carried in last and last[carried] is not whole[carried]:
                found.append(sketches.operation("mul", last[carried], factor))
        elif operation == "mul":
            whole[node] = factor
        if operation == "mul":
            last[node] = factor
    return found


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
