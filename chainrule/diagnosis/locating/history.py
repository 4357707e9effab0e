"""What happened in the run, besides arithmetic: gradients replaced or left over, values changed in place."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Set
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import Mutation
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.spots import span_of
from chainrule.diagnosis.truth.case import Case
from chainrule.diagnosis.truth.sketch import Sketches
from chainrule.run import needed

_FIRST = 0.5  # an event of the run says more than another operation that would give the same numbers


def of_history(case: Case, claim: Claim, mine: list[fx.Node], sketches: Sketches) -> Iterator[Mutation]:
    """Changes that undo what the run did to the values that a line reads, or to the gradient that it set."""
    yield from _replaced(case, claim, sketches)
    yield from _rebound(mine, sketches)
    yield from _left_over(case, mine)
    yield from _changed_in_place(case, mine, sketches)
    yield from _stepped(case, mine)
    yield from _indexed(mine, sketches)


def _replaced(case: Case, claim: Claim, sketches: Sketches) -> Iterator[Mutation]:
    """`h.g = ...` where another path has left a gradient already."""
    read = set(needed([claim.node]))
    tensors = {id(w.tensor) for w in case.hand.writes if w.node is claim.node}
    for write in case.hand.writes:
        if id(write.tensor) in tensors and write.node is not None and write.node not in read:
            by = sketches.operation("add", write.node, claim.node)
            yield Mutation(claim.node, by, "overwritten-not-accumulated", _FIRST)
    name = claim.node.meta.get("name") if "handed" not in claim.node.meta else None  # its name is the caller's
    earlier = [  # what a local name was bound to before, in each turn of a loop too: dx = ...; dx = ...
        n
        for n in case.graph.nodes
        if name and n.meta.get("name") == name and n not in read and n is not claim.node and n not in case.forward
        and n.meta.get("spot") is not None and n.meta["val"].shape == claim.node.meta["val"].shape
    ]  # fmt: skip
    if earlier:
        by = functools.reduce(lambda a, b: sketches.operation("add", a, b), [*earlier, claim.node])
        by.meta["added"] = claim.node
        yield Mutation(claim.node, by, "overwritten-not-accumulated", _FIRST + 0.1)


def _rebound(mine: list[fx.Node], sketches: Sketches) -> Iterator[Mutation]:
    """`dc = ...` where what the name was bound to before is lost, in each turn of a loop."""
    groups: dict[Any, list[tuple[fx.Node, fx.Node]]] = {}
    for node in mine:
        spot, name = node.meta.get("spot"), node.meta.get("name") if "handed" not in node.meta else None
        before = spot.names.get(name) if spot is not None and name else None
        if spot is not None and isinstance(before, fx.Node) and before is not node and _is_lost(before, node):
            groups.setdefault((spot.code, spot.index), []).append((node, before))
    for pairs in reversed(groups.values()):
        changes = []
        for node, before in pairs:
            by = sketches.operation("add", before, node)
            by.meta["added"] = node
            changes.append((node, by))
        yield Mutation(*changes[-1], "overwritten-not-accumulated", _FIRST + 0.1, changes=changes)


def _is_lost(before: fx.Node, node: fx.Node) -> bool:
    """Whether a value is read by nothing, and could be added to the one that took its name."""
    read = any(u.meta.get("phase") == "forward" for u in before.users)
    return not read and getattr(before.meta["val"], "shape", None) == getattr(node.meta["val"], "shape", ())


def _left_over(case: Case, mine: list[fx.Node]) -> Iterator[Mutation]:
    """`w.g += ...` where `w.g` is from an earlier run."""
    used = set(needed([case.base.output]))
    for node in mine:
        if node.meta["operation"] in ("add", "sub") and len(node.args) == 2:
            for place, operand in enumerate(node.args):
                other = node.args[1 - place]
                if isinstance(operand, fx.Node) and isinstance(other, fx.Node) and operand not in used:
                    made_of = [n for n in needed([operand]) if n.op == "placeholder"]
                    old = [n for n in made_of if n not in used and n not in case.base.gradients]
                    if made_of and len(old) == len(made_of) and not any(n.meta.get("upstream") for n in old):
                        yield Mutation(node, other, "stale-gradient", _FIRST)


def _changed_in_place(case: Case, mine: list[fx.Node], sketches: Sketches) -> Iterator[Mutation]:
    """A value that the forward pass used was written over before this line read it."""
    for node in mine:
        origin = _before_writing(node, case.forward)
        if origin is not node and origin in case.forward and isinstance(origin.meta["val"], torch.Tensor):
            given = origin.op == "placeholder" and not origin.meta.get("upstream")
            cause, here = ("stale-parameter", None) if given else ("inplace-corruption", node)
            yield Mutation(node, origin, cause, _FIRST, written=here if node.meta.get("spot") else None)
    read = dict.fromkeys(n for reader in mine for n in reader.all_input_nodes)
    for value in (
        n for n in read if n in case.forward and n.meta.get("written")
    ):  # in the forward pass: `loss = out.sub_(y).pow(2).mean()`
        before = value.args[0] if value.args else None
        readers = [r for r in mine if value in r.all_input_nodes]
        if isinstance(before, fx.Node) and isinstance(before.meta.get("val"), torch.Tensor) and value.meta.get("spot"):
            changes = [(r, sketches.with_inputs(r, {value: before})) for r in readers]
            yield Mutation(*changes[-1], "inplace-corruption", _FIRST, changes=changes, written=value)


def _before_writing(node: fx.Node, forward: Set[fx.Node]) -> fx.Node:
    """What a value was before it was written in place after the forward pass."""
    while node.meta.get("written") and node not in forward and node.args:
        before = node.args[0]
        if not isinstance(before, fx.Node):
            break
        node = before
    return node


def _stepped(case: Case, mine: list[fx.Node]) -> Iterator[Mutation]:
    """A parameter under its own name after a step: `w = w - lr * dw`."""
    claimed = [(c.node.meta.get("name") or c.node, c.value) for c in case.claims]
    for node in mine:
        origin = node.args[0] if node.args else None
        if node.meta["operation"] in ("sub", "add") and isinstance(origin, fx.Node) and origin.op == "placeholder":
            read: set[object] = set(needed([node]))
            read |= {
                n.meta["name"] for n in needed([node]) if n.meta.get("name")
            }  # as it was then: it may be added to later
            if any(value is origin and claim in read for claim, value in claimed):
                yield Mutation(node, origin, "stale-parameter", _FIRST)


def _indexed(mine: list[fx.Node], sketches: Sketches) -> Iterator[Mutation]:
    """`w.g[index] = rows` and `+= rows`, where the index repeats."""
    for node in mine:
        yield from _copied(node, sketches)
        if node.meta["operation"] not in ("index_put", "setitem") or len(node.args) < 3:
            continue
        base, index, value = node.args[:3]
        choices = [value]
        if isinstance(value, fx.Node) and value.meta["operation"] in ("add", "sub") and len(value.args) == 2:
            choices.insert(0, value.args[1])
        for choice in choices:
            if isinstance(base, fx.Node) and isinstance(choice, fx.Node):
                by = sketches.method("index_put", base, index, choice, accumulate=True)
                yield Mutation(node, by, "index-overwrite", _FIRST)


_ADDS = {"index_copy": "index_add", "scatter": "scatter_add"}


def _copied(node: fx.Node, sketches: Sketches) -> Iterator[Mutation]:
    """`index_copy_` where the index repeats, for `index_add_`."""
    name = node.meta["operation"].rstrip("_")
    adds, span = _ADDS.get(name), span_of(node)
    if adds is not None and len(node.args) == 4 and not node.kwargs:
        by = sketches.method(adds, *node.args)
        if span is not None:
            by.meta["text"] = source.text_at(span).replace(f".{name}", f".{adds}")
        yield Mutation(node, by, "index-overwrite", _FIRST)
