"""Matrix products: rows of an axis that stays, or a sum over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from chainrule.compiling.slicing.rules.book import rule, value_of
from chainrule.compiling.slicing.shares import PART, NotByRows, Rows, Share, Shares

aten = torch.ops.aten


# Of a product's operands: the axes of the left that are those of the batch, kept and summed over; the same of the right.
_AXES: dict[Any, tuple[str, str]] = {
    aten.mm.default: ("ik", "kj"), aten.bmm.default: ("bik", "bkj"), aten.mv.default: ("ik", "k"),
    aten.dot.default: ("k", "k"), aten.addmm.default: ("ik", "kj"), aten.baddbmm.default: ("bik", "bkj"),
    aten.addmv.default: ("ik", "k"),
}  # fmt: skip


@rule(*_AXES)
def product(s: Shares, node: fx.Node) -> Share:
    """Rows of an axis that stays are rows of the result; over rows of the other one is summed."""
    letters = _AXES[node.target]
    *bias, left, right = (a for a in node.args if isinstance(a, fx.Node))
    shares = [s.share(left), s.share(right)]
    found = {(word[r.axis], r.each) for word, r in zip(letters, shares) if isinstance(r, Rows)}
    if len(found) != 1:
        raise NotByRows
    ((letter, each),) = found
    for operand, word in zip((left, right), letters):
        if letter in word:
            s.by_rows(node, operand, Rows(word.index(letter), each))
    kept = "".join(dict.fromkeys(c for word in letters for c in word if c != "k"))
    if letter == "k":
        if bias:
            raise NotByRows
        return PART
    result = Rows(kept.index(letter), each)
    for value in bias:
        from_right, shape = len(kept) - result.axis, value_of(value).shape
        if len(shape) >= from_right and shape[-from_right] != 1:
            s.by_rows(node, value, Rows(len(shape) - from_right, each))
        else:
            s.all_of(value)
    return result
