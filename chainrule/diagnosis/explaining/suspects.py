"""Where a mistake is likeliest: the lines that give what the right backward pass does not have, from what it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.likelihood import is_matrix, occurs, right_values
from chainrule.diagnosis.truth.case import Case

_Line = tuple[Any, int, int]  # the code, the line, and the call or turn in which it runs


def suspects(
    case: Case, mine: list[fx.Node], carries: Iterable[fx.Node], values: Mapping[fx.Node, Any]
) -> set[fx.Node]:
    """The nodes of the lines whose results are no values of the right backward pass although all are that they read;
    and of the lines that made what these read besides gradients. `mine` are the person's nodes, in order, and
    `carries` those that depend on gradients; `values` are what they give if the other gradients are right.
    """
    known, moved = right_values(case), set(carries)
    lines: dict[_Line, list[fx.Node]] = {}
    at: dict[fx.Node, _Line] = {}
    turns: dict[tuple[Any, int], int] = {}
    last: tuple[Any, int] | None = None
    for node in mine:
        spot = node.meta.get("spot")
        if spot is None:
            continue
        place = spot.code, spot.line
        if place != last:
            turns[place] = turns.get(place, 0) + 1
        last = place
        at[node] = (*place, turns[place])
        lines.setdefault(at[node], []).append(node)
    right: dict[_Line, bool] = {}
    found: set[fx.Node] = set()
    for line, nodes in lines.items():
        inside = set(nodes)
        results = [n for n in nodes if n is mine[-1] or any(u not in inside for u in n.users)]
        given = [v for n in results if isinstance(v := values.get(n), torch.Tensor) and is_matrix(v)]
        right[line] = not moved & inside or all(occurs(v, known) for v in given)
        read = {at[r] for n in nodes for r in n.all_input_nodes if r in at and r not in inside}
        if right[line] or not all(right[r] for r in read if moved & set(lines[r])):
            continue
        found |= inside
        for other in read:
            if not moved & set(lines[other]):
                found |= set(lines[other])
    return found
