"""A change to one piece of source that runs several times, in a loop or for several layers: made in every turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import fx

from chainrule.diagnosis.explaining.mutation import Around, Mutation


class NoSuchValue(LookupError):
    """A turn has nothing in the place of a value of another one."""


def in_every_turn(mutations: Iterator[Mutation], group: list[fx.Node], around: Around) -> Iterator[Mutation]:
    """Changes to the last node of a group, each with the same change to the others: the values that go by the same
    names there take the place of those of the last turn."""
    last = group[-1]
    for mutation in mutations:
        if len(group) == 1:
            yield mutation
            continue
        if mutation.at is not last or len(mutation.changes) > 1:
            continue
        try:
            changes = [(node, _Turn(last, node, around).of_change(mutation.by)) for node in group[:-1]]
        except NoSuchValue:
            continue
        yield replace(mutation, changes=[*changes, (last, mutation.by)])


class _Turn:
    """From the values of one turn to those of another."""

    def __init__(self, last: fx.Node, other: fx.Node, around: Around) -> None:
        self.last, self.other, self.around = last, other, around
        self.here, self.by_name = around.names(last), around.nodes(other)
        self.made: dict[fx.Node, fx.Node] = {last: other}
        pairs = zip(_read(last), _read(other), strict=False)
        self.operands = dict(pairs) if len(_read(last)) == len(_read(other)) else {}

    def of_change(self, by: fx.Node) -> fx.Node:
        """`by` as it is in the other turn; constants that differ between the turns still do."""
        if "again" in by.meta:
            made: fx.Node | None = by.meta["again"](self.other)
            if made is None:
                raise NoSuchValue
            return made
        same = by.op == self.last.op and by.target == self.last.target and len(by.args) == len(self.last.args)
        if by.meta["phase"] == "sketch" and same and by not in self.operands:
            args = tuple(self._constant(*a) for a in zip(by.args, self.last.args, self.other.args, strict=True))
            kwargs = {k: self._of(v) for k, v in by.kwargs.items()}
            return self.around.sketches.like(by, args, kwargs)
        made = self._of(by)
        return made

    def _of(self, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._of(v) for v in value)
        if isinstance(value, slice):
            return slice(self._of(value.start), self._of(value.stop), self._of(value.step))
        return self._node(value) if isinstance(value, fx.Node) else value

    def _node(self, node: fx.Node) -> fx.Node:
        if node not in self.made:
            self.made[node] = self._found(node)
        return self.made[node]

    def _found(self, node: fx.Node) -> fx.Node:
        if node in self.operands:
            return self.operands[node]
        text = self.here.get(node)
        if text is not None:
            if text not in self.by_name:
                raise NoSuchValue(text)
            return self.by_name[text]
        if node.op == "placeholder":
            return node
        if node.meta["phase"] == "sketch" or node.meta["phase"] == "backward":
            return self.around.sketches.like(
                node, self._of(node.args), {k: self._of(v) for k, v in node.kwargs.items()}
            )
        raise NoSuchValue(node.name)

    def _constant(self, new: Any, last: Any, other: Any) -> Any:
        """An argument of the same call: what was not changed is as it is there, what was counts from there."""
        several = all(isinstance(a, tuple | list) for a in (new, last, other))
        if several and len(new) == len(last) == len(other):
            return type(new)(self._constant(*parts) for parts in zip(new, last, other, strict=True))
        if new is last or (not isinstance(new, fx.Node) and type(new) is type(last) and new == last):
            return other
        return self._of(new)


def _read(node: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n))
    return found
