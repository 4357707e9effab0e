"""Which values share memory: how long each lives, and where in one arena it lies."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

ALIGNMENT = 64  # bytes: a cache line, and the widest vectors


def size_of(value: torch.Tensor) -> int:
    """The bytes that a value takes, rounded up to whole lines."""
    held = value.numel() and 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride()))
    return -(-held * value.element_size() // ALIGNMENT) * ALIGNMENT


def is_view(node: fx.Node) -> bool:
    """Whether the value of `node` is a view of its first argument."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def transposes(node: fx.Node) -> bool:
    """Whether the value of `node` is the transpose of a matrix, as a view of it."""
    aten, value = torch.ops.aten, node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.ndim != 2:
        return False
    if node.target is aten.permute.default:
        return [axis % 2 for axis in node.args[1]] == [1, 0]  # type: ignore[union-attr,operator]
    if node.target is aten.transpose.int:
        return {axis % 2 for axis in node.args[1:]} == {0, 1}  # type: ignore[operator]
    return node.target is aten.t.default


def owner(node: fx.Node) -> fx.Node:
    """The node whose memory the value of `node` lies in."""
    while is_view(node) or (node.target is operator.getitem and is_view(node.args[0])):  # type: ignore[arg-type]
        node = node.args[0]  # type: ignore[assignment]
    return node


def operations(node: fx.Node) -> list[fx.Node]:
    """The operations that read a value, its parts or views of it."""
    found: list[fx.Node] = []
    for user in node.users:
        through = owner(user) is not user or user.target is operator.getitem
        found += operations(user) if through else [user] if user.op == "call_function" else []
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Interval:
    """A value's bytes, from the line that makes it up to the last that reads it."""

    node: fx.Node
    size: int
    first: int
    last: int

    def meets(self, other: Interval) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each value lies, in bytes from the start, and how long the whole is."""

    offsets: Mapping[fx.Node, int]
    size: int


def arranged(intervals: Iterable[Interval]) -> Arena:
    """Place values so that those alive at one time do not overlap: the largest first, each in the lowest gap that
    is free for all of its life (Pisarchyk and Lee, 2020, "greedy by size")."""
    placed: list[tuple[int, Interval]] = []
    for interval in sorted(intervals, key=lambda i: -i.size):
        offset = 0
        for start, other in placed:  # by offset
            if other.meets(interval):
                if start - offset >= interval.size:
                    break
                offset = max(offset, start + other.size)
        placed.append((offset, interval))
        placed.sort(key=lambda pair: pair[0])
    size = max((offset + i.size for offset, i in placed), default=0)
    return Arena({i.node: offset for offset, i in placed}, size)


def most_alive(intervals: Sequence[Interval]) -> int:
    """The most bytes alive at one time."""
    changes: dict[int, int] = {}
    for i in intervals:
        changes[i.first] = changes.get(i.first, 0) + i.size
        changes[i.last + 1] = changes.get(i.last + 1, 0) - i.size
    now = most = 0
    for line in sorted(changes):
        now += changes[line]
        most = max(most, now)
    return most
