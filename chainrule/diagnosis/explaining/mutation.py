"""One small change to an operation of a backward pass, and what it may use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import fx

from chainrule.diagnosis.truth.sketch import Sketches

REPLACED, DROPPED, WRAPPED = 1.0, 2.0, 3.0  # how far a change goes, in steps of the order in which they are preferred


@dataclass(eq=False)
class Mutation:
    """`by` in place of `at`."""

    at: fx.Node
    by: fx.Node
    repairs: str  # the cause, where this change to the person's line makes it right
    weight: float
    makes: str = ""  # the cause, where this change to the right line gives the person's numbers
    changes: list[tuple[fx.Node, fx.Node]] = field(default_factory=list)  # every turn of a loop; else this one
    written: fx.Node | None = None  # the in-place operation that should not be one
    strange: float = 0.0  # how many values on the way it leaves that the right gradient does not have, or takes away

    def __post_init__(self) -> None:
        self.makes = self.makes or self.repairs
        self.changes = self.changes or [(self.at, self.by)]


@dataclass
class Names:
    """The tensors that can be named at one line: the best name of each, and what every name stands for."""

    of: dict[fx.Node, str]
    nodes: dict[str, fx.Node]
    integers: dict[str, int]


@dataclass
class Around:
    """What the mutations of a line may use."""

    sketches: Sketches
    reach: dict[fx.Node, str]  # the tensors that have a name at this line
    carries: set[fx.Node] = field(default_factory=set)  # the nodes that depend on the upstream gradient
    gradients: set[fx.Node] = field(default_factory=set)  # those that are known besides the one that is wrong
    divisors: set[fx.Node] = field(default_factory=set)  # what the right gradient is divided by
    numbers: dict[str, float] = field(default_factory=dict)  # Python's numbers that have a name at this line
    constants: list[float] = field(default_factory=list)  # the numbers that stand in the forward pass
    counted: set[float] = field(default_factory=set)  # the sizes that the right gradient computes with
    sizes: list[fx.Node] = field(default_factory=list)  # those that have a name of their own there
    areas: list[list[fx.Node]] = field(default_factory=list)  # the sizes that the forward pass averages over together
    orders: list[tuple[int, ...]] = field(default_factory=list)  # in which the right gradient puts axes
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # tuples of sizes that have a name there
    value: fx.Node | None = None  # of which the gradient is looked for
    at: Callable[[fx.Node], Names | None] = lambda node: None  # the names where a node was computed
    until: float = math.inf  # when to stop, on the clock of chainrule.work

    def names(self, node: fx.Node) -> dict[fx.Node, str]:
        """The tensors that have a name where `node` is computed."""
        found = self.at(node)
        return self.reach if found is None else found.of

    def nodes(self, node: fx.Node) -> dict[str, fx.Node]:
        """What each name stands for where `node` is computed."""
        found = self.at(node)
        return {text: n for n, text in self.reach.items()} if found is None else found.nodes

    def integers(self, node: fx.Node) -> dict[str, int]:
        """Python's whole numbers that have a name where `node` is computed."""
        found = self.at(node)
        return {} if found is None else found.integers


Kind = Callable[[fx.Node, Around], Iterator[Mutation]]
