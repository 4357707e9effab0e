"""Sums of a backward pass: of paths that meet at a value, or of the terms of one derivative."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

# through a norm's mean and its variance lead paths of their own
_MIXING = frozenset(
    ("layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm", "var", "std", "normalize", "var_mean")
)


def joins_paths(sums: Iterable[fx.Node]) -> bool:
    """Whether what is added there comes back along several paths."""
    return any(s.meta.get("accumulated") or s.meta.get("rule") in _MIXING for s in sums)


def lost_from(sums: Iterable[fx.Node]) -> str:
    """The cause, where a summand is left out."""
    return "lost-path" if joins_paths(sums) else "missing-term"
