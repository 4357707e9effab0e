"""Which values of a recorded program depend, differentiably, on which."""

from __future__ import annotations

from collections.abc import Container, Iterable

import torch
from torch import fx

from chainrule.program import differentiable
from chainrule.recording import Region
from chainrule.rules import BOOK
from chainrule.run import needed

_FLAT = "is flat between its steps"
STEPS = frozenset((_FLAT, "gives indices or counts", "gives truth values"))


def reached_from(sources: Iterable[fx.Node], graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose value depends, differentiably, on `sources`."""
    reached = set(sources)
    for node in graph.nodes:
        region = node.meta.get("region")
        if region is not None and any(n in reached for n in region.reads):
            if differentiable(node):
                reached.add(node)  # whatever happens inside: the call has a backward step of its own
            continue
        if any(n in reached for n in node.all_input_nodes) and _passes(node):
            reached.add(node)
    return reached


def leading_to(output: fx.Node) -> set[fx.Node]:
    """The nodes on whose value `output` depends, differentiably; some of them where it depends on them in a region
    alone."""
    found = {output}
    for node in reversed(output.graph.nodes):
        if node in found:
            region: Region | None = node.meta.get("region")
            found.update(node.all_input_nodes if region is None and _passes(node) else ())
            found.update(region.reads if region is not None and differentiable(node) else ())
    return found


def flat_between(source: fx.Node, output: fx.Node, why: Container[str] = (_FLAT,)) -> str:
    """The operation that is flat between its steps, where every way from `source` to `output` is cut and one leads
    through such; else "". The gradient is then 0 almost everywhere. `why` are the reasons that count as such.
    """
    graph = output.graph
    if output in reached_from([source], graph):
        return ""
    behind, before = {source}, needed([output])
    for node in before:
        if any(n in behind for n in node.all_input_nodes):
            if BOOK.constants.get(node.meta.get("operation", "")) in why:
                return str(node.meta["operation"])
            behind.add(node)
    return ""


def _passes(node: fx.Node) -> bool:
    """Whether a gradient passes through `node`."""
    if node.meta.get("constant") or node.meta.get("operation") in BOOK.constants:
        return False
    value = node.meta.get("val")
    return differentiable(node) or (isinstance(value, tuple | list) and not isinstance(value, torch.Size))
