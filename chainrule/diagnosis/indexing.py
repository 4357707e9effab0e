"""Changes to reads and writes through an index: `=` for `+=`, `g[:, t]` for `g[arange(n), t]`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from chainrule.diagnosis.mutation import REPLACED, Around, Mutation
from chainrule.diagnosis.sketch import is_tensor


def indices(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """`g[:, t]` for `g[arange(n), t]`, and `=` for `+=` through an index."""
    sketches, writes = around.sketches, node.meta["operation"] == "index_put"
    index = node.args[1] if len(node.args) > 1 else None
    if isinstance(index, tuple) and len(index) > 1 and index[0] == slice(None) and is_tensor(index[1]):
        rows = sketches.function(torch.arange, sketches.size(node.args[0], 0))  # type: ignore[arg-type]
        yield Mutation(
            node, sketches.like(node, (node.args[0], (rows, *index[1:]), *node.args[2:])), "wrong-axis", REPLACED
        )
    if writes and len(node.args) > 2 and isinstance(node.args[0], fx.Node) and not node.kwargs.get("accumulate"):
        inner = index[0] if isinstance(index, tuple) and len(index) == 1 else index
        added = sketches.operation("add", sketches.operation("getitem", node.args[0], inner), node.args[2])
        by = sketches.like(node, (node.args[0], index, added))
        by.meta["added"] = node.args[2]
        yield Mutation(node, by, "overwritten-not-accumulated", REPLACED)
        if is_tensor(value := node.args[2]) and value.meta["operation"] in ("add", "sub") and len(value.args) == 2:  # type: ignore[union-attr]
            other = sketches.operation("sub" if value.meta["operation"] == "add" else "add", *value.args)  # type: ignore[union-attr]
            by = sketches.like(node, (node.args[0], index, other))
            yield Mutation(node, by, "sign", REPLACED + 0.1)


def scattered(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """`=` for `+=` through a slice."""
    sketches, (base, value, *place) = around.sketches, node.args
    if not isinstance(base, fx.Node) or not is_tensor(value):
        return
    numbers = dict(zip(("dim", "start"), place, strict=False)) | node.kwargs
    dim, start = numbers.get("dim", 0), numbers.get("start", numbers.get("index", 0)) or 0
    if node.meta["operation"] == "select_scatter":
        region = sketches.method("select", base, dim, start)
    else:
        region = sketches.method("narrow", base, dim, start, sketches.size(value, dim if isinstance(dim, int) else 0))  # type: ignore[arg-type]
    by = sketches.like(node, (base, sketches.operation("add", region, value), *place))
    by.meta["added"] = value
    yield Mutation(node, by, "overwritten-not-accumulated", REPLACED)
