"""Where a forward pass is cut into layers: at the person's calls, and at the lines between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from chainrule.program import Program
from chainrule.reached import reached_from
from chainrule.run import needed

# Each reader of a piece takes it for itself.
_PIECES = ("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "hsplit", "vsplit", "dsplit")


@dataclass
class Cut:
    """A part of the forward pass that gives one value."""

    nodes: list[fx.Node]  # what is computed, in order
    inputs: list[fx.Node]  # what it reads, in the order of the function's arguments where it is a call
    output: fx.Node
    title: str  # what a class of it is called
    words: dict[fx.Node, str]  # what the function calls its arguments


def cuts(program: Program) -> list[Cut]:
    """The layers, in the order in which they run."""
    flowing = with_gradient(program)
    nodes = [n for n in needed([program.output]) if n in flowing and n.op != "placeholder" and _is_tensor(n)]
    nodes = [
        n for n in nodes if n is program.output or _made_by(n) is n or _made_by(n).meta["operation"] not in _PIECES
    ]
    parts = _parts(nodes, _common(nodes), _Readers(nodes, program.output))
    ends = {part.nodes[-1] for part in parts}
    return [_complete(part, ends) for part in parts]


def with_gradient(program: Program) -> set[fx.Node]:
    """The values that a gradient reaches on its way from the output to what was asked for."""
    flowing = reached_from(program.wanted, program.graph)
    found: set[fx.Node] = set()
    queue = [program.output]
    while queue:
        node = queue.pop()
        if node in flowing and node not in found:
            found.add(node)
            queue += node.all_input_nodes
    return found


@dataclass
class _Part:
    nodes: list[fx.Node]
    call: Any = None  # the Invocation, where it is one


class _Readers:
    """Who reads a value: directly, or through numbers, tuples and masks, which each reader makes for itself."""

    def __init__(self, nodes: list[fx.Node], output: fx.Node) -> None:
        self.nodes, self.output = set(nodes), output
        self.found: dict[fx.Node, set[fx.Node]] = {n: set() for n in nodes}
        for node in nodes:
            for read in reads(node, self.nodes.__contains__):
                if read in self.nodes:
                    self.found[read].add(node)

    def outputs(self, part: list[fx.Node]) -> list[fx.Node]:
        """The values of a part that are read outside of it."""
        inside = set(part)
        return [n for n in part if n is self.output or self.found[n] - inside]


def reads(node: fx.Node, stops: Callable[[fx.Node], bool]) -> Iterable[fx.Node]:
    """What `node` reads, as far as the nodes at which to stop and the inputs."""
    seen: set[fx.Node] = set()
    queue = list(node.all_input_nodes)
    while queue:
        current = queue.pop(0)
        if current in seen:
            continue
        seen.add(current)
        if stops(current) or current.op == "placeholder":
            yield current
        else:
            queue += current.all_input_nodes


def _parts(nodes: list[fx.Node], depth: int, readers: _Readers) -> list[_Part]:
    """Consecutive nodes of one call, if they give one value; else they are cut further inside."""
    found: list[_Part] = []
    for call, group in itertools.groupby(nodes, lambda n: _call(n, depth)):
        part = list(group)
        if call is None:
            found += [_Part(line) for line in _lines(part, readers)]
        elif readers.outputs(part) == part[-1:]:
            found.append(_Part(part, call))
        else:
            found += _parts(part, depth + 1, readers)
    return found


def _lines(nodes: list[fx.Node], readers: _Readers) -> list[list[fx.Node]]:
    """Cut where the person's line ends, at a value with a name, and at one that is read elsewhere."""
    found: list[list[fx.Node]] = [[]]
    for node, following in itertools.pairwise([*nodes, None]):
        assert node is not None
        found[-1].append(node)
        moved = following is not None and following.meta.get("site") != node.meta.get("site")
        if following is not None and (moved or node.meta.get("name")):
            found.append([])
    lines = []
    for line in found:
        for node in line[:-1]:
            if node in readers.outputs(line):
                at = line.index(node) + 1
                lines.append(line[:at])
                line = line[at:]
        lines.append(line)
    return [line for line in lines if line]


def _made_by(node: fx.Node) -> fx.Node:
    """The operation that gave the value: of one of several results, what gave them all."""
    return node.all_input_nodes[0] if node.meta["operation"] == "part" else node


def _calls(node: fx.Node) -> tuple[Any, ...]:
    found: tuple[Any, ...] = _made_by(node).meta.get("invocations", ())
    return found


def _call(node: fx.Node, depth: int) -> Any:
    calls = _calls(node)
    return calls[depth] if depth < len(calls) else None


def _common(nodes: list[fx.Node]) -> int:
    """How many calls all nodes are in: the forward pass itself, and what only hands on to another function."""
    paths = [_calls(n) for n in nodes]
    return sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False)))


def _complete(part: _Part, ends: set[fx.Node]) -> Cut:
    inside = set(part.nodes)
    boundary: dict[fx.Node, None] = {}
    made: set[fx.Node] = set()

    def visit(node: fx.Node) -> None:
        if (node in ends and node not in inside) or node.op == "placeholder":
            boundary[node] = None
        elif node not in made:
            made.add(node)
            for read in node.all_input_nodes:
                visit(read)

    visit(part.nodes[-1])
    words = part.call.arguments if part.call is not None else {}
    named = {n: words[n.meta.get("base", n)] for n in boundary if n.meta.get("base", n) in words}
    order = list(words.values())
    inputs = sorted(named, key=lambda n: order.index(named[n])) + [n for n in boundary if n not in named]
    body = [n for n in part.nodes[-1].graph.nodes if n in made]
    return Cut(body, inputs, part.nodes[-1], _title(part), named)


def _title(part: _Part) -> str:
    if part.call is not None:
        plain = part.call.function in ("forward", "__call__") and part.call.owner
        return camel(part.call.owner if plain else part.call.function)
    name, operations = part.nodes[-1].meta.get("name") or "", [_made_by(n).meta["operation"] for n in part.nodes]
    if len(operations) > 1 and len(name) > 2:
        return camel(name)
    return "".join(camel(o) for o in operations) if len(operations) <= 3 else camel(operations[-1])


def camel(name: str) -> str:
    """A name as a class is called.

    >>> camel("cross_entropy"), camel("lin"), camel("<lambda>")
    ('CrossEntropy', 'Lin', 'Lambda')
    """
    words = "".join(c if c.isalnum() else " " for c in name).split()
    title = "".join(w[0].upper() + w[1:] for w in words) or "Layer"
    return title if title[0].isalpha() else f"Layer{title}"


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta["val"], torch.Tensor)
