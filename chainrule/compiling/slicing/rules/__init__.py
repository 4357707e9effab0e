"""How operations treat the rows of a batch: for each, which share its result has, and what a slice gives it."""

from __future__ import annotations

from typing import Any

import torch

from chainrule.compiling.slicing.rules import layers, products, reductions, shapes
from chainrule.compiling.slicing.rules.book import RULES
from chainrule.compiling.slicing.rules.elements import elementwise
from chainrule.compiling.slicing.shares import Rule


def rule_of(target: Any) -> Rule | None:
    """The rule of an operation; all that are elementwise have one in common."""
    if target in RULES:
        return RULES[target]
    tags = getattr(target, "tags", ())
    if torch.Tag.pointwise not in tags or torch.Tag.nondeterministic_seeded in tags:
        return None
    return elementwise if len(target._schema.returns) == 1 else None


__all__ = ["layers", "products", "reductions", "rule_of", "shapes"]
