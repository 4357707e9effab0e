"""The table of rules, and what they ask of their operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from chainrule.compiling.slicing.shares import NotByRows, Rows, Rule, Shares

RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of operations."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return enter


def value_of(node: Any) -> torch.Tensor:
    value: torch.Tensor = node.meta["val"]
    return value


def rows_of(s: Shares, node: fx.Node) -> Rows:
    """Of the first operand that is there by rows."""
    return next(r for _, r in s.operands(node) if isinstance(r, Rows))


def only(s: Shares, node: fx.Node) -> tuple[fx.Node, Rows]:
    """The one operand, which is there by rows."""
    ((operand, rows),) = s.operands(node)
    return operand, rows


def along(s: Shares, node: fx.Node, axis: int, *operands: Any) -> Rows:
    """The rows of operands that all have them along `axis`."""
    rows = rows_of(s, node)
    if rows.axis != axis:
        raise NotByRows
    for operand in operands:
        s.by_rows(node, operand, rows)
    return rows


def outside(s: Shares, source: Any, sizes: Any) -> Rows:
    """The rows of a value, where they are not along its last axes, as many as `sizes`."""
    rows = s.share(source)
    if not isinstance(rows, Rows) or rows.axis >= value_of(source).ndim - len(sizes):
        raise NotByRows
    return rows
