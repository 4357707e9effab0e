"""Which product of matrices made an element: its two factors, and the row and the column that meet there."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from chainrule.errors import ChainruleError
from chainrule.run import needed, run
from chainrule.show.layout import Layout, Line
from chainrule.show.python import ATOM
from chainrule.show.table import entry

if TYPE_CHECKING:
    from chainrule.derivation import Derivation

PRODUCTS = frozenset(("matmul", "mm", "bmm", "mv", "linear", "addmm", "baddbmm", "dot", "vdot", "outer"))


@dataclass
class Product:
    """left @ right = out, as matrices: of a batch, the slice that holds the element."""

    names: tuple[str, str, str]
    left: torch.Tensor
    right: torch.Tensor
    out: torch.Tensor
    row: int
    column: int
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # of the whole tensors
    slice: str  # which matrices of the batch, in words
    code: str = ""  # the line
    element: str = ""  # its name, and its value
    value: float = 0.0
    whole: bool = False  # whether the line is the product and nothing else


def product_of(d: Derivation, name: str, at: Any) -> Product:
    """The product that made the element `at` of a value or of a gradient."""
    d.values()
    layout = d.layout
    line = _line(d, layout, name)
    node = _product_in(layout, line.node)
    if node is None:
        makers = [
            li.target for li in layout.lines if li.phase in ("forward", "backward") and _product_in(layout, li.node)
        ]
        raise ChainruleError(
            f"{name} {tuple(line.node.meta['val'].shape)} = {line.code} is made by no product of matrices; "
            f"{'those are ' + ', '.join(dict.fromkeys(makers)) if makers else 'there is none here'}; "
            f'picture("{name.removesuffix(".g")}") draws it as a heat map',
            line.node.meta.get("site"),
        )
    value = line.node.meta["val"]
    index = _index(name, tuple(value.shape), at)
    product = _matrices(layout, node, index)
    product.code, product.element, product.value = (
        f"{line.target} = {line.code}",
        entry(name, index),
        float(value[index].detach()),
    )
    if node is line.node and len(node.all_input_nodes) == 2:  # no bias
        product.whole, product.names = True, (*product.names[:2], name)
    return product


def _line(d: Derivation, layout: Layout, name: str) -> Line:
    """The line that makes a value, or its gradient where the name ends in .g."""
    lines = {line.target: line for line in layout.lines if line.phase in ("forward", "backward")}
    if name in lines:
        return lines[name]
    base = name.removesuffix(".g")
    node = d.node(base)  # raises for a name that is none
    variable = layout.variables.get(node, base)
    spelled = f"{variable}.g" if name != base else variable
    if spelled in lines:
        return lines[spelled]
    what = "is an input" if node.op == "placeholder" and name == base else "has no line of its own"
    raise ChainruleError(
        f"{name} {tuple(node.meta['val'].shape)} {what}, so no product made it; the lines are {', '.join(lines)}",
        node.meta.get("site"),
    )


def _product_in(layout: Layout, node: fx.Node) -> fx.Node | None:
    """The product in the line of `node`: that node itself, or one of its shape that other terms are added to."""
    if node.meta["operation"] in PRODUCTS and _factors(node) is not None:
        return node
    if node.meta["operation"] not in ("add", "sub", "neg"):
        return None
    shape = node.meta["val"].shape
    for read in node.all_input_nodes:
        inside = read not in layout.shown and isinstance(read.meta["val"], torch.Tensor)
        if inside and read.meta["val"].shape == shape and (found := _product_in(layout, read)) is not None:
            return found
    return None


def _factors(node: fx.Node) -> tuple[fx.Node, fx.Node, bool] | None:
    """The two factors of a product, and whether the second is written transposed."""
    operation, args = node.meta["operation"], [*node.args, *node.kwargs.values()]
    first, second = args[1:3] if operation in ("addmm", "baddbmm") else args[:2]
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return None
    if first.meta["val"].is_complex() or second.meta["val"].is_complex():
        return None
    return first, second, operation == "linear"


def _matrices(layout: Layout, node: fx.Node, index: tuple[int, ...]) -> Product:
    """The slices of the factors that meet in the element at `index`."""
    factors = _factors(node)
    assert factors is not None
    left, right, transposed = factors
    values = run(needed([node]), {n: n.meta["val"] for n in node.graph.nodes if "val" in n.meta})
    a, b = values[left].detach(), values[right].detach()
    names = (layout.python.text(left, ATOM), layout.python.text(right, ATOM))
    if transposed and b.ndim > 1:
        b, names = b.mT, (names[0], f"{names[1]}.T")
    shapes = (tuple(a.shape), tuple(b.shape), tuple(node.meta["val"].shape))
    if node.meta["operation"] == "outer":
        a, b = a[:, None], b[None, :]
    rest = list(index)
    column = rest.pop() if b.ndim > 1 else 0
    row = rest.pop() if a.ndim > 1 else 0
    a = a[None, :] if a.ndim == 1 else a
    b = b[:, None] if b.ndim == 1 else b
    said = f"at {rest} of the batch" if rest else ""
    a, b = (_slice(t, rest).double() for t in (a, b))
    return Product((*names, f"{names[0]} @ {names[1]}"), a, b, a @ b, row, column, shapes, said)


def _slice(value: torch.Tensor, at: list[int]) -> torch.Tensor:
    """The matrix at a place of the batch, of a tensor that may be shared along it."""
    own = value.shape[:-2]
    return value[tuple(0 if n == 1 else i for n, i in zip(own, at[len(at) - len(own) :], strict=True))]


def _index(name: str, shape: tuple[int, ...], at: Any) -> tuple[int, ...]:
    try:
        index = tuple(operator.index(i) for i in (at if isinstance(at, Sequence) else (at,)))
    except TypeError:
        index = ()
    if len(index) != len(shape) or any(not -n <= i < n for i, n in zip(index, shape, strict=False)):
        raise ChainruleError(
            f"{name} has shape {shape}, in which at={at!r} is no element; give {len(shape)} indices that count from 0"
        )
    return tuple(i % n for i, n in zip(index, shape, strict=True))
