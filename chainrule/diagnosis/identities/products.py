"""Identities of matrix products, einsum and sums."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.truth.equal_forms import (
    MOVES,
    PRODUCTS,
    TRANSPOSES,
    Forms,
    Found,
    is_number,
    operation,
    peeled,
)

_SUMS = ("sum", "sum_to_size")
_ADDED_ROWS = ("index_put", "index_add", "scatter_add", "embedding_dense_backward")
_THROUGH = MOVES | TRANSPOSES


def einsums(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with("einsum"):
        operands = [a for a in mine.args[1:] if isinstance(a, fx.Node)]
        if forms.match(mine, "einsum"):
            continue
        if forms.match(mine, *PRODUCTS) or (_plain(mine) and _match_transposed(forms, mine)):
            yield "einsum-product", mine
        elif (summed := forms.match(mine, *_SUMS)) is not None:
            if len(operands) == 1:
                yield "einsum-axis-sum", mine
            elif operation(_summed(summed)) == "mul":
                yield "einsum-sum", mine
        elif len(operands) == 2 and forms.match(mine, "mul"):
            yield "einsum-elementwise", mine


def broadcast_sums(forms: Forms) -> Iterator[Found]:
    """A sum of a product whose factors were stretched against one another, for a matrix product, or the reverse."""
    for mine in forms.mine_with(*_SUMS):
        if _is_stretched(_summed(mine)) and forms.match(mine, *PRODUCTS):
            yield "broadcast-sum", mine
    for mine in forms.mine_with(*PRODUCTS):
        theirs = forms.match(mine, *_SUMS)
        if theirs is not None and _is_stretched(_summed(theirs)):
            yield "broadcast-sum", mine


def dots(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with("dot", "inner", "vdot", "vecdot"):
        theirs = forms.match(mine, *_SUMS)
        if theirs is not None and operation(_summed(theirs)) == "mul":
            yield "dot-product", mine


def transposes(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with(*TRANSPOSES):
        if operation(mine.args[0]) in PRODUCTS and forms.match(mine, *PRODUCTS):
            yield "transposed-product", mine
    for mine in forms.mine_with(*PRODUCTS):
        theirs = forms.match(mine, *TRANSPOSES)
        if theirs is not None and operation(theirs.args[0]) in PRODUCTS and not forms.match(mine, *PRODUCTS):
            yield "transposed-product", mine


def row_by_row(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with("stack", "cat"):
        rows = [peeled(r) for r in _items(mine.args[0])]
        if len(rows) > 1 and all(operation(r) in PRODUCTS for r in rows) and forms.match(mine, *PRODUCTS):
            yield "row-by-row", mine
    if "outer" in forms.mine_operations or "ger" in forms.mine_operations:
        for mine in forms.mine_with("add"):
            terms = _terms(mine)
            if len(terms) > 1 and all(operation(t) in ("outer", "ger") for t in terms) and forms.match(mine, *PRODUCTS):
                yield "outer-products", mine


def ones(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with(*PRODUCTS):
        for operand in mine.all_input_nodes:
            source = peeled(operand, _THROUGH)
            made_of_ones = operation(source) in ("ones", "ones_like", "new_ones")
            if made_of_ones and forms.match(mine, *_SUMS):
                yield "ones-product", mine


def diagonals(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with("diagonal", "diag"):
        theirs = forms.match(mine, *_SUMS)
        if operation(mine.args[0]) in PRODUCTS and theirs is not None and operation(_summed(theirs)) == "mul":
            yield "diagonal-of-product", mine


def blocks(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with(*PRODUCTS):
        joined = [
            a for a in mine.all_input_nodes if operation(peeled(a, _THROUGH)) in ("cat", "concat", "hstack", "vstack")
        ]
        theirs = forms.match(mine, "add") if len(joined) == 2 else None
        if theirs is not None and sum(operation(t) in PRODUCTS for t in _terms(theirs)) > 1:
            yield "block-product", mine


def transposed_sums(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with("sum"):
        theirs = forms.match(mine, *_SUMS) if operation(mine.args[0]) in TRANSPOSES else None
        if theirs is not None and operation(theirs.args[0]) not in TRANSPOSES:
            yield "transposed-sum", mine


def one_hots(forms: Forms) -> Iterator[Found]:
    for mine in forms.mine_with(*PRODUCTS, "einsum", "tensordot"):
        hot = [a for a in mine.all_input_nodes if _is_one_hot(peeled(a, _THROUGH))]
        if hot and forms.match(mine, *_ADDED_ROWS):
            yield "one-hot-product", mine


def scales(forms: Forms) -> Iterator[Found]:
    """A number outside a product on one side, inside it on the other."""
    for mine in forms.mine_with("mul", "div"):
        inner = _scaled_product(mine)
        theirs = forms.match(mine, *PRODUCTS) if inner is not None else None
        if theirs is not None and any(_is_scaled(a) for a in theirs.all_input_nodes):
            yield "scale-of-product", mine
    for mine in forms.mine_with(*PRODUCTS):
        if any(a in forms.mine and _is_scaled(a) for a in mine.all_input_nodes):
            theirs = forms.match(mine, "mul", "div")
            if theirs is not None and _scaled_product(theirs) is not None:
                yield "scale-of-product", mine


RULES = [
    one_hots, einsums, broadcast_sums, dots, row_by_row, blocks, transposes, ones, diagonals, transposed_sums, scales
]  # fmt: skip


def _summed(node: fx.Node) -> Any:
    return peeled(node.args[0])


def _is_stretched(node: Any) -> bool:
    """Whether a product has factors of different shapes, neither of them a number."""
    if operation(node) != "mul":
        return False
    shapes = [a.meta["val"].shape for a in node.args if isinstance(a, fx.Node) and _is_tensor(a) and not is_number(a)]
    return len(shapes) == 2 and shapes[0] != shapes[1]


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _plain(node: fx.Node) -> bool:
    return _is_tensor(node) and node.meta["val"].ndim == 2


def _match_transposed(forms: Forms, mine: fx.Node) -> bool:
    """Whether the derived line has a product that is the transpose of `mine`."""
    for theirs in forms.theirs_with(*PRODUCTS):
        if theirs.meta["val"].ndim == 2 and tuple(theirs.meta["val"].shape[::-1]) == tuple(mine.meta["val"].shape):
            pairs = [(p.values.get(mine), p.values.get(theirs)) for p in forms.points.all()]
            if all(a is not None and b is not None and torch.allclose(a, b.T, rtol=1e-8, atol=0) for a, b in pairs):
                return True
    return False


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else []


def _terms(node: Any) -> list[Any]:
    """The summands of a tree of `+`, without numbers and zeros."""
    if operation(node) == "add" and not node.kwargs:
        return [t for a in node.args for t in _terms(a)]
    if not isinstance(node, fx.Node) or operation(node) in ("zeros_like", "zeros", "new_zeros"):
        return []
    return [node]


def _is_one_hot(node: Any) -> bool:
    name = operation(node)
    if name == "getitem":
        return operation(peeled(node.args[0])) in ("eye", "identity")
    return name == "one_hot" or (name == "eq" and any(operation(peeled(a)) == "arange" for a in node.args))


def _is_scaled(node: Any) -> bool:
    node = peeled(node, _THROUGH)
    return operation(node) in ("mul", "div") and sum(is_number(a) for a in node.args[:2]) == 1


def _scaled_product(node: fx.Node) -> Any:
    """The product that `node` multiplies by a number."""
    if len(node.args) != 2 or sum(is_number(a) for a in node.args) != 1:
        return None
    inner = peeled(next(a for a in node.args if not is_number(a)))
    return inner if operation(inner) in PRODUCTS else None
