"""Rewrite rows for complex numbers: conjugates move inward until they meet, and real parts swallow them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from chainrule.run import blank
from chainrule.simplify.products import from_real, is_part
from chainrule.simplify.rewriter import Rewriter, is_tensor
from chainrule.simplify.rows import row

# conj(f(a, b)) = f(conj(a), conj(b)): sums, products, and what only moves numbers
_COMMUTE = frozenset(
    """mul div neg add sub sum mean matmul mm bmm mv outer einsum expand reshape view flatten unsqueeze squeeze
    transpose permute movedim t T mT getitem narrow select cat stack flip roll where masked_fill sum_to_size
    type_as""".split()  # noqa: SIM905
)


@row("conj(f(conj(a), b)) = f(a, conj(b)) where f is made of sums and products", "conj")
def inward(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    if not isinstance(inner, fx.Node) or not is_tensor(inner):
        return None
    if _opens(inner):
        leaves = _leaves(inner)
        if any(_meets(leaf) for leaf in leaves) or all(_is_real(leaf) for leaf in leaves):
            return _conjugated(rewriter, inner)
        return None
    return _conjugated(rewriter, inner) if _meets(inner) or _is_real(inner) else None


@row("real(conj(x)) = real(x)", "real")
def real_of_conjugate(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    if not isinstance(inner, fx.Node):
        return None
    if _is(inner, "conj"):
        return rewriter.call(getattr, inner.args[0], "real", operation="real")
    return inner.args[0] if from_real(inner) else None  # type: ignore[return-value]


@row("imag(conj(x)) = -imag(x)", "imag")
def imag_of_conjugate(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    inner = node.args[0]
    if not isinstance(inner, fx.Node) or not _is(inner, "conj"):
        return None
    part = rewriter.call(getattr, inner.args[0], "imag", operation="imag")
    return rewriter.call(torch.neg, part)


@row("complex(r) * z = r * z", "mul", "div", "add", "sub")
def real_operand(rewriter: Rewriter, node: fx.Node) -> fx.Node | None:
    if node.kwargs or len(node.args) != 2 or not any(isinstance(a, fx.Node) and from_real(a) for a in node.args):
        return None
    args = [a.args[0] if isinstance(a, fx.Node) and from_real(a) else a for a in node.args]
    if not any(is_tensor(a) and a.meta["val"].dtype.is_complex for a in args):  # type: ignore[union-attr]
        return None
    better = rewriter.call(node.target, *args, operation=node.meta["operation"])
    return better if better.meta["val"].dtype == node.meta["val"].dtype else None


def _conjugated(rewriter: Rewriter, value: Any) -> Any:
    """The conjugate of `value`, with the conjugation done at the leaves."""
    if isinstance(value, complex):
        return value.conjugate()
    if isinstance(value, tuple | list):
        return type(value)(_conjugated(rewriter, v) for v in value)
    if not isinstance(value, fx.Node) or _is_real(value):
        return value
    if _meets(value):
        return value.args[0]
    if not _opens(value):
        return rewriter.call("conj", value)
    made = rewriter.graph.create_node(value.op, value.target, _conjugated(rewriter, value.args), value.kwargs)
    made.meta.update(operation=value.meta["operation"], phase="backward", val=blank(value.meta["val"]), planned=True)
    return made


def _leaves(value: Any) -> list[fx.Node]:
    if isinstance(value, tuple | list):
        return [leaf for v in value for leaf in _leaves(v)]
    if not isinstance(value, fx.Node) or not is_tensor(value):
        return []
    return _leaves(value.args) if _opens(value) else [value]


def _opens(node: fx.Node) -> bool:
    """Whether conjugation passes through `node`, which nobody else reads."""
    return node.meta["operation"] in _COMMUTE and is_part(node) and not _is_real(node)


def _meets(node: fx.Node) -> bool:
    return _is(node, "conj")


def _is_real(node: fx.Node) -> bool:
    """Whether the numbers are real, whatever their dtype."""
    if not is_tensor(node) or not node.meta["val"].dtype.is_complex:
        return True
    return (node.meta["phase"] == "backward" and node.meta["operation"] in ("ones_like", "zeros_like")) or from_real(
        node
    )


def _is(node: fx.Node, operation: str) -> bool:
    return node.meta.get("operation") == operation and node.meta["phase"] == "backward"
