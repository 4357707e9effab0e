"""A step parted into what comes before its slices, what each slice computes, and what comes after."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from chainrule.compiling.graph.forms import shorten
from chainrule.compiling.graph.lowering import Lowered
from chainrule.compiling.graph.merging import clean
from chainrule.compiling.memory import is_view
from chainrule.compiling.slicing.rules import rule_of
from chainrule.compiling.slicing.shares import AFTER, PART, WHOLE, NotByRows, Rows, Shares, ancestors
from chainrule.compiling.slicing.sums import ROWS


@dataclass
class Parted:
    """`outer` is the step with one call, `call`, in place of all that is computed by rows; `slice` is what that call
    does for some rows. The gradients of `slice` are terms of `sums`; its first arguments are `split` into rows."""

    outer: Lowered
    call: fx.Node
    slice: Lowered
    sums: list[torch.Tensor]
    totals: list[torch.Tensor]  # of each term, the sum that it is added to
    split: list[Rows]
    size: int  # rows of a slice


def parted(lowered: Lowered, count: int) -> Parted:
    """`lowered`, in `count` slices. Raises NotByRows where they would need to know of one another."""
    whole = lowered.copied()
    shorten(whole, ROWS)
    return _Parting(whole, Shares(whole, count, rule_of)).parted()


class _Parting:
    def __init__(self, whole: Lowered, shares: Shares) -> None:
        self.whole, self.shares = whole, shares
        self.outer, self.slice = fx.Graph(), fx.Graph()
        self.at: dict[fx.Node, fx.Node] = {}  # the node of `outer` for a node of the whole
        self.inside: dict[Any, fx.Node] = {}  # the node of `slice` for a node, or for its rows (node, Rows)
        self.given: list[fx.Node] = []  # to the call: what is split, and then what each slice has all of
        self.taken: list[fx.Node] = []  # placeholders of `slice` for these
        self.split: list[Rows] = []
        self.names: dict[fx.Node, str] = {}  # of placeholders of `slice`
        self.totals: list[int] = []  # of each term, which sum it belongs to

    def parted(self) -> Parted:
        shares, graph = self.shares, self.whole.graph
        before = {n for node in shares.known for n in ancestors(node)}
        sums = [n for n in graph.nodes if shares.of.get(n) is PART and n not in before and self._is_read(n)]
        results = set(graph.output_node().all_input_nodes)
        if self.whole.loss not in self._after() or any(isinstance(shares.share(n), Rows) for n in results):
            raise NotByRows
        if not any(isinstance(s, Rows) for n, s in shares.of.items() if n.op == "call_function"):
            raise NotByRows
        for node in graph.nodes:
            if node.op == "placeholder":
                self.at[node] = self.outer.node_copy(node)
            elif node.op == "call_function" and (node in before or shares.of[node] is WHOLE):
                self.at[node] = self.outer.node_copy(node, self.at.__getitem__)
        body = self._body(sums)
        call = self.outer.call_function(_slices, tuple(self.at[n] for n in self.given))
        call.meta["val"] = tuple(n.meta["val"] for n in sums)
        call.meta["reads"] = [self.at[n] for n in self.whole.held if n in self.inside]
        held = [_zeros(n.meta["val"]) for n in sums]
        for i, (node, total) in enumerate(zip(sums, held)):
            made = self.outer.call_function(operator.getitem, (call, i))
            made.meta = {**node.meta, "lies in": total}
            self.at[node] = made
            self.whole.names[node] = f"{self.whole.names.get(node, node.name)}_sum"
        for node in graph.nodes:
            if node.op == "call_function" and shares.of[node] is AFTER and node not in before:
                self.at[node] = self.outer.node_copy(node, self.at.__getitem__)
        ends: Any = graph.output_node().args[0]
        self.outer.output([self.at[n] for n in ends])
        outer = self.whole.carried(self.outer, self.at)
        clean(outer, {})
        return Parted(outer, call, body, held, [held[i] for i in self.totals], self.split, shares.size)

    def _after(self) -> set[fx.Node]:
        return {n for n, share in self.shares.of.items() if share in (PART, AFTER)}

    def _is_read(self, node: fx.Node) -> bool:
        """Whether a term is read after the slices, and not by another term alone."""
        return any(self.shares.of.get(user) is not PART for user in node.users)

    # -- a slice -------------------------------------------------------------------------------------

    def _body(self, sums: list[fx.Node]) -> Lowered:
        """What is computed for the rows of a slice. Placeholders come first in a graph."""
        shares = self.shares
        inner = [n for n in self.whole.graph.nodes if n.op == "call_function" and self._by_rows(n)]
        for node in inner:
            for operand in node.all_input_nodes:
                self._split(node, operand)
        for node in inner:
            for operand in node.all_input_nodes:
                self._read_whole(node, operand)
        for node in inner:
            for operand in node.all_input_nodes:
                self._view(self._source(node, operand))
            made = self.slice.node_copy(node, lambda n: self.inside[self._source(node, n)])  # noqa: B023
            if node in shares.args:
                made.args = fx.map_arg(shares.args[node], lambda n: self.inside[self._source(node, n)])  # noqa: B023
            made.meta = {**node.meta, "val": _computed(made)}
            self.inside[node] = made
        added = [(node, self.inside[term]) for node in sums for term in _terms(node, shares.joined)]
        if any(term.meta["val"].shape != node.meta["val"].shape or _is_coarse(term) for node, term in added):
            raise NotByRows
        self.totals = [sums.index(node) for node, _ in added]
        return self._lowered(*map(list, zip(*added)))

    def _lowered(self, sums: list[fx.Node], terms: list[fx.Node]) -> Lowered:
        whole, inside = self.whole, self.inside
        homes = []
        for node in sums:
            with self.slice.inserting_before(next(iter(self.slice.nodes))):
                home = self.slice.placeholder("total")
            home.meta["val"] = node.meta["val"]
            homes.append(home)
        self.slice.output([terms[0], *terms])
        names = self.names | {inside[n]: name for n, name in whole.names.items() if n in inside}
        names |= {home: whole.names.get(n, n.name) for home, n in zip(homes, sums)}
        held = {inside[n]: tensor for n, tensor in whole.held.items() if n in inside}
        body = replace(
            whole, graph=self.slice, batch=list(self.taken), held=held, drawn={}, loss=terms[0],
            gradients=dict(zip(homes, terms)), params={}, writes={}, guards=[], names=names,
            sites={inside[n]: site for n, site in whole.sites.items() if n in inside},
            operations={inside[n]: operation for n, operation in whole.operations.items() if n in inside},
            rewritten=set(), backward={inside[n] for n in whole.backward if n in inside},
        )  # fmt: skip
        clean(body, {})
        return body

    def _by_rows(self, node: fx.Node) -> bool:
        """Whether a slice computes a node: by rows, or a term of a sum."""
        share = self.shares.share(node)
        return isinstance(share, Rows | tuple) or (share is PART and node not in self.shares.joined)

    def _source(self, reader: fx.Node, operand: fx.Node) -> Any:
        """What stands for an operand in a slice."""
        rows = self.shares.taken.get((reader, operand))
        return (operand, rows) if rows is not None else operand

    def _split(self, reader: fx.Node, operand: fx.Node) -> None:
        """Rows of the batch, or of a value that is there as a whole, become an argument."""
        source, share = self._source(reader, operand), self.shares.of[operand]
        rows = source[1] if isinstance(source, tuple) else share
        if source in self.inside or (operand.op != "placeholder" and source is operand):
            return
        if not isinstance(rows, Rows):
            return
        length = self.shares.length(rows)
        if operand.target is torch.ops.aten.full.default:  # the same number everywhere
            sizes = list(operand.meta["val"].shape)
            sizes[rows.axis] = length
            made = self.slice.create_node("call_function", operand.target, (sizes, *operand.args[1:]), operand.kwargs)
            made.meta = {**operand.meta, "val": operand.meta["val"].narrow(rows.axis, 0, length)}
            self.inside[source] = made
            return
        self._argument(source, operand, operand.meta["val"].narrow(rows.axis, 0, length))
        self.split.append(rows)

    def _read_whole(self, reader: fx.Node, operand: fx.Node) -> None:
        """A value that each slice has all of: a tensor that stays, a view of one, or an argument."""
        source = self._source(reader, operand)
        if source in self.inside or isinstance(source, tuple) or self.shares.share(operand) is not WHOLE:
            return
        if operand in self.whole.held:
            self.inside[operand] = self.slice.node_copy(operand)
        elif _is_view_of(operand, self.whole.held):
            base: Any = operand.args[0]
            self._read_whole(operand, base)
        elif operand.op != "call_function" or operand.all_input_nodes:
            self._argument(operand, operand, operand.meta["val"])

    def _view(self, source: Any) -> None:
        """Make a view, or a constant, once more inside."""
        if source in self.inside or isinstance(source, tuple) or self.shares.share(source) is not WHOLE:
            return
        if torch.Tag.nondeterministic_seeded in getattr(source.target, "tags", ()):
            raise NotByRows
        for base in source.all_input_nodes:
            self._view(base)
        self.inside[source] = self.slice.node_copy(source, self.inside.__getitem__)

    def _argument(self, source: Any, operand: fx.Node, value: torch.Tensor) -> None:
        placeholder = self.slice.placeholder(operand.name)
        placeholder.meta["val"] = value
        self.names[placeholder] = self.whole.names.get(operand, operand.name)
        self.inside[source] = placeholder
        self.given.append(operand)
        self.taken.append(placeholder)


def _slices(*values: torch.Tensor) -> Any:
    """Stands in the graph for the call, until there is one."""
    raise NotImplementedError


def _is_coarse(term: fx.Node) -> bool:
    """Whether a sum of such terms would lose digits that the whole has."""
    dtype: torch.dtype = term.meta["val"].dtype
    return dtype.is_floating_point and dtype.itemsize < 4


def _zeros(like: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device).zero_()


def _terms(node: fx.Node, joined: set[fx.Node]) -> list[fx.Node]:
    """What was added to make a sum."""
    if node not in joined:
        return [node]
    return [term for read in node.args for term in _terms(read, joined)]  # type: ignore[arg-type]


def _is_view_of(node: fx.Node, held: Any) -> bool:
    while is_view(node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node in held


def _computed(node: fx.Node) -> Any:
    """The value of a node from those of its arguments, as tensors without memory."""
    function: Callable[..., Any] = node.target  # type: ignore[assignment]
    read: Any = [fx.map_arg(a, lambda n: n.meta["val"]) for a in (node.args, node.kwargs)]
    try:
        with torch.no_grad():
            return function(*read[0], **read[1])
    except RuntimeError as error:
        raise NotByRows from error
