"""Other sizes for the inputs of a recorded program, that differ from one another."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.truth.points import _fresh, _generator, repeated
from chainrule.run import double, needed, step

Axis = tuple[fx.Node, int]  # an axis of an input
Changes = dict[Axis, int]  # axes and their new sizes
Reached = tuple[Changes, int | None]  # changes, and the place of the node that fails with them
STEPS = (1, 2, 3, 4)  # how much larger than it was a size is tried, beyond what makes it unlike the others
LONGER = 2  # times as long as it was an axis may become that is split into others
_STEPS, _FEWEST = 60_000, 40  # operations in all the runs of a long program, which a loop that is written out makes
DEPTH = 3  # how far ties of ties are followed before all axes of a size are tried at once


def unequal(
    nodes: Iterable[fx.Node],
    inputs: Mapping[fx.Node, Any],
    seed: int,
    guards: Sequence[fx.Node] = (),
    runs: int = 300,
    moving: Collection[Any] | None = None,
) -> dict[fx.Node, Any] | None:
    """Inputs of other, pairwise unequal sizes (and other values, as `fresh` draws them), on which `nodes` still run.

    Which axes are tied to one another is found by trial. An axis is made longer; where a node then fails, axes of
    the inputs that it is computed from are made longer too, until everything runs and each of `guards` (nodes) is
    true. Axes that cannot change, because a number in the program says so, stay, as do axes of size 1 and 0, and
    inputs that no node reads (an upstream gradient among them: the caller knows the shape of the output). Indices
    stay in range, since no axis becomes shorter. At most about `runs` runs are made; None if nothing could change. Of
    `moving`, where it is given, are the inputs that may change.

    >>> graph = fx.Graph()
    >>> x, w = graph.placeholder("x"), graph.placeholder("w")
    >>> product = graph.call_function(torch.matmul, (x, w))
    >>> other = unequal([x, w, product], {x: torch.ones(4, 4), w: torch.ones(4, 4)}, seed=0)
    >>> other[x].shape, other[w].shape
    (torch.Size([5, 6]), torch.Size([6, 7]))
    """
    for drawn in (True, False):  # values that a condition in the program does not allow: as they were, then
        search = _Search(list(nodes), inputs, guards, seed, drawn, runs)
        search.only(moving)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search.left = min(runs, max(_FEWEST, _STEPS // (len(search.nodes) + 1)))
            if search.failure({}) is None:
                search.all_axes()
                return search.inputs_at(search.sizes) if search.moved else None
    return None


class _Search:
    """The sizes reached so far, for which the program runs; moves to further ones."""

    def __init__(
        self,
        nodes: list[fx.Node],
        inputs: Mapping[fx.Node, Any],
        guards: Sequence[fx.Node],
        seed: int,
        drawn: bool,
        runs: int,
    ) -> None:
        self.inputs, self.seed, self.drawn, self.left = dict(inputs), seed, drawn, runs
        self.stop = 0
        self.guards = set(guards)
        self.nodes = needed([*nodes, *guards], given=inputs)
        self.place = {n: i for i, n in enumerate(self.nodes)}
        read = {n for node in self.nodes if node not in self.inputs for n in node.all_input_nodes}
        tensors = {n: v for n, v in self.inputs.items() if n in read and isinstance(v, torch.Tensor)}
        self.sizes: dict[Axis, int] = {(n, k): s for n, v in tensors.items() for k, s in enumerate(v.shape) if s > 1}
        self.number = {n: k for k, n in enumerate(self.inputs)}
        self.moved: set[Axis] = set()
        self.unsure: set[Axis] = set()  # moved along with several others: perhaps not tied, so tried again
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}  # in the last run that went through
        self.values: dict[fx.Node, Any] = {}  # of the last run, up to where it failed
        self.made: dict[tuple[fx.Node, tuple[int, ...]], Any] = {}

    def only(self, moving: Collection[Any] | None) -> None:
        """Let no other inputs change."""
        self.sizes = {a: s for a, s in self.sizes.items() if moving is None or a[0] in moving}

    # Running

    def inputs_at(self, sizes: Mapping[Axis, int]) -> dict[fx.Node, Any]:
        return {n: self._input(n, v, sizes) for n, v in self.inputs.items()}

    def _input(self, node: fx.Node, value: Any, sizes: Mapping[Axis, int]) -> Any:
        """An input at other sizes: repeated along its axes as far as needed, then drawn anew."""
        if not isinstance(value, torch.Tensor):
            return value
        shape = tuple(sizes.get((node, k), s) for k, s in enumerate(value.shape))
        if (node, shape) not in self.made:
            value = repeated(double(value.detach()).clone(), shape)
            if self.drawn:
                value = _fresh(value, _generator(self.seed, self.number[node]))
            self.made[node, shape] = value
        return self.made[node, shape]

    def failure(self, changes: Mapping[Axis, int]) -> int | None:
        """The place of the node that fails with these sizes; None if all run."""
        self.left -= 1
        self.values = self.inputs_at({**self.sizes, **changes})
        for node in self.nodes:
            if node in self.values or node.op in ("placeholder", "output"):
                continue
            try:
                self.values[node] = step(node, self.values, double)
                if node in self.guards and not bool(self.values[node]):
                    return self.place[node]
            except Exception:  # a shape that does not fit may raise anything
                return self.place[node]
        self.shapes = {n: self._shape(v) for n, v in self.values.items()}
        return None

    # Moving

    def all_axes(self) -> None:
        """Move every axis once, by itself or with those tied to it: first what is easily moved, then the others."""
        along: dict[Axis, list[Axis]] = {}  # the axes found to be tied to one that has not moved yet
        for share, sizes in ((self.left // 5, slice(0, 1)), (self.left // 2, slice(1, None))):
            stuck: set[Axis] = set()
            for axis in self.sizes:
                if axis in self.moved or axis in stuck:
                    continue
                self.stop = max(0, self.left - share)  # no axis may use up all the runs
                for size in self._candidates(self.sizes[axis])[sizes]:
                    self.unsure = set()
                    with_it = [a for a in along.get(axis, ()) if self.sizes[a] == self.sizes[axis]]
                    changes, done = self._tied(dict.fromkeys([axis, *with_it], size))
                    if done:
                        self.sizes.update(changes)
                        self.moved |= {axis, *(changes.keys() - self.unsure)}
                        break
                    along[axis] = [a for a, s in changes.items() if s == size and a not in self.unsure | {axis}]
                    stuck |= changes.keys()
        self._one_by_one()

    def _one_by_one(self) -> None:
        """Tell apart what only had to be no shorter than another axis: a table from the indices into it."""
        for axis, size in list(self.sizes.items()):
            if self.left > 0 and axis in self.moved and list(self.sizes.values()).count(size) > 1:
                larger = self._candidates(size)[0]
                if self.failure({axis: larger}) is None:
                    self.sizes[axis] = larger

    def _candidates(self, size: int) -> list[int]:
        """Sizes above `size` that no axis has or had, and last a multiple (what is split into parts)."""
        taken = {*self.sizes.values(), *(self.inputs[n].shape[k] for n, k in self.sizes)}
        free = [s for s in range(size + 1, size + len(taken) + 2 + max(STEPS)) if s not in taken]
        multiple = next(m for m in range(2 * size, (len(taken) + 3) * size, size) if m not in taken)
        return [*free[: len(STEPS)], *([multiple] if multiple not in free[: len(STEPS)] else [])]

    def _tied(self, changes: Changes) -> tuple[Changes, bool]:
        """`changes` with those of the axes that must change along; and whether the program then runs."""
        failed = self.failure(changes) if self.left > self.stop else 0
        while failed is not None:
            more = self._along(changes, failed, DEPTH) if self.left > self.stop else None
            if more is None:
                return changes, False
            changes, failed = more
        return changes, True

    def _past(self, changes: Changes, failed: int, goal: int, depth: int) -> Reached | None:
        """`changes` with further ones, with which the program runs beyond the node in place `goal`."""
        now: int | None = failed
        while now is not None and now < goal:
            more = self._along(changes, now, depth)
            if more is None:
                return None
            changes, now = more
        return (changes, now) if now != goal else None

    def _along(self, changes: Changes, failed: int, depth: int) -> Reached | None:
        """Changes more, with which the program runs further than to the node in place `failed`."""
        options = self._options(changes, failed)
        earlier: list[tuple[Changes, int]] = []
        for axis, size in options:
            if self.left <= self.stop:
                return None
            further = {**changes, axis: size}
            now = self.failure(further)
            if now is None or now > failed:
                return further, now
            if now < failed:
                earlier.append((further, now))
        for further, before in earlier if depth else ():  # that axis has ties of its own
            self.failure(further)
            reached = self._past(further, before, failed, depth - 1)
            if reached is not None:
                return reached
        return self._together(changes, options, failed) if len(options) > 1 else None

    def _together(self, changes: Changes, options: list[tuple[Axis, int]], failed: int) -> Reached | None:
        """Several changes at once (weight and bias of a norm, say): the nearest ones, two, four or more, less those
        that turn out needless."""
        count = 2
        while count < 2 * len(options) and self.left > self.stop:
            further = {**dict(reversed(options[:count])), **changes}
            now = self.failure(further)
            if now is None or now > failed:
                break
            count *= 2
        else:
            return None
        for axis in [a for a in reversed(further) if a not in changes]:
            fewer = {a: s for a, s in further.items() if a != axis}
            then = self.failure(fewer)
            if then is None or (now is not None and then >= now):
                further, now = fewer, then
        self.unsure |= further.keys() - changes.keys()
        return further, now

    def _options(self, changes: Mapping[Axis, int], failed: int) -> list[tuple[Axis, int]]:
        """Axes that may have to change along, the nearest to the failing node first: those as long as a changed one
        was, and those as long as an axis was of what the node reads; then those that are several times as long, which
        are split: `(h @ w).reshape(n, m, k)`."""
        node = self.nodes[failed]
        pairs = {(self.sizes[a], s) for a, s in changes.items()}
        for read in node.all_input_nodes:
            old, new = self.shapes.get(read, ()), self._shape(self.values.get(read))
            pairs |= {(o, n) for o, n in zip(old, new) if n > o > 1}
        near = [n for n in _ancestors(node) if n in self.inputs]
        axes = [(n, k) for n in near for k in range(len(self._shape(self.inputs[n])))]
        free = [a for a in axes if a in self.sizes and a not in changes]
        equal = [(a, n) for a in free for o, n in sorted(pairs) if o == self.sizes[a]]
        split = [(a, s // o * n) for a in free for o, n in sorted(pairs) if (s := self.sizes[a]) > o and not s % o]
        split = [(a, size) for a, size in split if size <= LONGER * self.sizes[a]]
        return [*equal, *split]

    @staticmethod
    def _shape(value: Any) -> tuple[int, ...]:
        return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _ancestors(node: fx.Node) -> list[fx.Node]:
    """What a node is computed from, the nearest first."""
    found = {node: None}
    queue = [node]
    for current in queue:
        for read in current.all_input_nodes:
            if read not in found:
                found[read] = None
                queue.append(read)
    return list(found)
