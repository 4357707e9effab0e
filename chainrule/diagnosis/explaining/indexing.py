"""Changes to reads and writes through an index: `=` for `+=`, `g[:, t]` for `g[arange(n), t]`."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.explaining.mutation import REPLACED, Around, Mutation
from chainrule.diagnosis.reading import source
from chainrule.diagnosis.reading.spots import span_of
from chainrule.diagnosis.truth.sketch import is_tensor


def indices(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """`g[:, t]` for `g[arange(n), t]`, and `=` for `+=` through an index."""
    sketches, writes = around.sketches, node.meta["operation"] == "index_put"
    index = node.args[1] if len(node.args) > 1 else None
    if isinstance(index, tuple | list) and len(index) > 1 and _is_open(index[0]) and is_tensor(index[1]):
        rows = sketches.function(torch.arange, sketches.size(node.args[0], 0))  # type: ignore[arg-type]
        place = (rows, *index[1:])
        yield Mutation(node, _elsewhere(node, place, around), "wrong-axis", REPLACED)
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


def other_rows(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """`np.add.at(dv, pos, g)` for `np.add.at(dv, neg, g)`."""
    index: Any = node.args[1] if len(node.args) > 2 else None
    span, names = span_of(node), around.names(node)
    if not isinstance(index, tuple) or len(index) != 1 or span is None or index[0] not in names:
        return
    now = index[0].meta["val"]
    for other, name in names.items():
        held = other.meta["val"]
        if other is not index[0] and held.dtype == now.dtype and held.shape == now.shape:
            by = around.sketches.like(node, (node.args[0], (other,), node.args[2]))
            by.meta["statement"] = re.sub(rf"(?<![\w.]){re.escape(names[index[0]])}(?!\w)", name, source.text_at(span))
            yield Mutation(node, by, "wrong-tensor", REPLACED + 0.3)


def _is_open(entry: Any) -> bool:
    return entry is None or entry == slice(None)


def _elsewhere(node: fx.Node, place: Any, around: Around) -> fx.Node:
    """A read or write through another index; of `x[i] += y`, both."""
    sketches, (base, _, *rest) = around.sketches, node.args
    value = rest[0] if rest else None
    if isinstance(value, fx.Node) and value.meta["operation"] in ("add", "sub", "mul", "div") and len(value.args) == 2:
        held, other = value.args
        if isinstance(held, fx.Node) and held.meta["operation"] == "getitem" and held.args[0] is base:
            rest[0] = sketches.like(value, (sketches.operation("getitem", base, place), other))
    by = sketches.like(node, (base, place, *rest))
    by.meta["place"] = place
    return by


def overwritten(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """`x[mask] = c` for `x[mask] *= c`."""
    sketches, args = around.sketches, node.args
    span = span_of(node)
    assigned = source.assignment_at(span) if span is not None else None
    if len(args) != 3 or not isinstance(args[2], int | float) or assigned is None or not assigned.target.endswith("]"):
        return
    named = [(text, n) for text, n in around.numbers.items() if n == args[2] or not args[2]]
    for text, number in named or [(str(args[2]), args[2])]:
        by = sketches.function(torch.where, args[1], sketches.operation("mul", args[0], number), args[0])
        by.meta["statement"] = f"{assigned.target} *= {text}"
        cause = "upstream-dropped" if args[2] and args[0] in around.carries else "wrong-factor"
        yield Mutation(node, by, cause, REPLACED)


def other_places(node: fx.Node, around: Around) -> Iterator[Mutation]:
    """Another number in an index that is computed: `h[:, t]` for `h[:, t - 1]`, `x[i]` for `x[-i]`."""
    span = span_of(node)
    found = source.subscript_at(span) if span is not None else None
    if found is None or span is None or not isinstance(node.args[0], fx.Node):
        return
    for written in _other_texts(found.slice, source.loop_variables(span.file, span.line)):
        inside = ast.parse(f"_[{written}]", mode="eval").body
        assert isinstance(inside, ast.Subscript)
        text = ast.unparse(ast.Subscript(found.value, inside.slice, ast.Load()))
        by = _at_place(node, written, text, around)
        if by is not None and by.args[1] != node.args[1]:  # in another turn it may be the same
            by.meta["again"] = functools.partial(_at_place, written=written, text=text, around=around)
            yield Mutation(node, by, "wrong-tensor", REPLACED + 0.35)


def _at_place(node: fx.Node, written: str, text: str, around: Around) -> fx.Node | None:
    names: dict[str, Any] = {t: _Shaped(n) for t, n in around.nodes(node).items() if t.isidentifier() and is_tensor(n)}
    try:
        index = eval(f"_[{written}]", {"__builtins__": {"len": len}}, {**names, **around.integers(node), "_": _Index()})
    except (NameError, TypeError, ArithmeticError, AttributeError, LookupError):
        return None  # made of more than numbers
    entries = index if isinstance(index, tuple) else (index,)
    read = tuple(e.node if isinstance(e, _Shaped) else e for e in entries)
    by = around.sketches.like(node, (node.args[0], read if isinstance(index, tuple) else read[0]))
    by.meta["text"] = text
    return by


class _Shaped:
    """A tensor, of which nothing is known but its shape."""

    def __init__(self, node: fx.Node) -> None:
        self.node, self.shape = node, tuple(node.meta["val"].shape)

    def __len__(self) -> int:
        return self.shape[0]

    def size(self, axis: int) -> int:
        return self.shape[axis]


class _Index:
    def __getitem__(self, index: Any) -> Any:
        return index


def _other_texts(index: ast.expr, variables: list[str]) -> Iterator[str]:
    """The source of an index with one of its numbers written otherwise."""
    entries = index.elts if isinstance(index, ast.Tuple) else [index]
    for place, entry in enumerate(entries):
        for other in _other_entries(entry, variables):
            texts = [other if k == place else ast.unparse(e) for k, e in enumerate(entries)]
            yield ", ".join(texts)


def _other_entries(entry: ast.expr, variables: list[str]) -> Iterator[str]:
    text = ast.unparse(entry)
    if isinstance(entry, ast.Slice):
        low, high = (None if e is None else ast.unparse(e) for e in (entry.lower, entry.upper))
        if entry.step is None and (low or high):
            if high is not None and not low:
                yield f"-{high}:" if not high.startswith("-") else f"{high[1:]}:"  # the last ones for the first
            if low is not None and not high:
                yield f":{low[1:]}" if low.startswith("-") else f":-{low}"
                yield f"{low[1:]}:" if low.startswith("-") else f"-{low}:"
            names = {n.id for n in ast.walk(entry) if isinstance(n, ast.Name)}
            for name, other in itertools.product(names, variables):
                if name != other and other not in names:
                    yield re.sub(rf"\b{name}\b", other, text)
    elif isinstance(entry, ast.Name | ast.BinOp | ast.UnaryOp | ast.Constant):
        around = [f"{v}{more}" for v in variables for more in ("", " - 1", " + 1")]
        yield from (
            other for other in dict.fromkeys([*around, f"{text} - 1", f"{text} + 1", f"-1 - {text}"]) if other != text
        )


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
    by.meta["again"] = lambda other: next((m.by for m in scattered(other, around)), None)
    yield Mutation(node, by, "overwritten-not-accumulated", REPLACED)
