"""Identities of softmax and sigmoid, alone and with the loss behind them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from chainrule.diagnosis.truth.case import RIGHT, Point
from chainrule.diagnosis.truth.equal_forms import Forms, Found, operation
from chainrule.run import needed


def one_step(forms: Forms) -> Iterator[Found]:
    """p - y, where the derived pass goes through the parts of the loss."""
    z = forms.claim.value
    if forms.above or not {"sub", "index_put", "where", "scatter_add", "add"} & forms.mine_operations:
        return
    between = _between(forms, z)
    if not {"exp", "softmax", "log_softmax", "logsumexp", "sigmoid", "logsigmoid", "log1p", "softplus"} & between:
        return
    if all(_is_p_minus_y(p, z, True) for p in forms.points.all()) and not _in_one_step(forms, z, True):
        yield "one-step-softmax", forms.claim.node
    elif all(_is_p_minus_y(p, z, False) for p in forms.points.all()) and not _in_one_step(forms, z, False):
        yield "one-step-sigmoid", forms.claim.node


def jacobian(forms: Forms) -> Iterator[Found]:
    """(diag(p) - p p^T) g"""
    z = forms.claim.value
    first = next(forms.mine_with("diag", "diag_embed"), None)
    if first is None or {"diag", "diag_embed"} & forms.their_operations:
        return
    if any(operation(p) == "softmax" or _is_softmax(forms, z, p) for p in forms.read_by_me):
        yield "softmax-jacobian", first


def softmax_by_parts(forms: Forms) -> Iterator[Found]:
    """p * (g - (p * g).sum()), where the forward pass computes p by parts."""
    z = forms.claim.value
    for above in forms.above:
        p = above.value
        if p not in forms.read_by_me or z in p.all_input_nodes or not {"sum", "einsum"} & forms.mine_operations:
            continue
        between = set(needed([p], given=[z])) - {p, z}
        if between & forms.read_by_them and not between & forms.read_by_me and _is_softmax(forms, z, p):
            yield "softmax-in-one-step", forms.claim.node


RULES = [one_step, jacobian, softmax_by_parts]


def _between(forms: Forms, z: fx.Node) -> set[str]:
    """The operations of the forward pass from `z` to the output."""
    behind = {z}
    found = set()
    for node in needed([forms.case.base.output]):
        if any(r in behind for r in node.all_input_nodes):
            behind.add(node)
            found.add(operation(node))
    return found


def _is_softmax(forms: Forms, z: fx.Node, p: fx.Node) -> bool:
    if p.meta["val"].shape != z.meta["val"].shape:
        return False
    for point in forms.points.all():
        value, goal = point.values.get(z), point.values.get(p)
        if value is None or goal is None or not value.ndim:
            return False
        axes = [d for d in range(value.ndim) if torch.allclose(value.softmax(d), goal, rtol=RIGHT, atol=0)]
        if not axes:
            return False
    return True


def _residual(point: Point, z: fx.Node, softmax: bool) -> tuple[torch.Tensor, torch.Tensor] | None:
    """p, and p - y with y told by the signs: the gradient is negative only where y is one."""
    value, truth = point.values.get(z), point.truth(z)
    if not isinstance(value, torch.Tensor) or not value.ndim or not value.numel() or not bool(truth.any()):
        return None
    p = value.softmax(-1) if softmax else value.sigmoid()
    y = (truth < 0).to(p)
    if softmax and (value.shape[-1] < 2 or not bool((y.sum(-1) == 1).all())):
        return None
    return p, p - y


def _is_p_minus_y(point: Point, z: fx.Node, softmax: bool) -> bool:
    """Whether the gradient of `z` is p - y, times a number (for softmax, one for each row)."""
    found = _residual(point, z, softmax)
    if found is None:
        return False
    ratio = point.truth(z) / found[1]
    first = ratio[..., :1] if softmax else ratio.reshape(-1)[0]
    return bool(torch.isfinite(ratio).all()) and bool(((ratio - first).abs() <= 1e-7 * first.abs()).all())


def _in_one_step(forms: Forms, z: fx.Node, softmax: bool) -> bool:
    """Whether the derived pass has p - y too."""
    found = _residual(forms.points.here, z, softmax)
    assert found is not None
    values = [forms.points.here.values.get(n) for n in forms.theirs_with("sub")]
    return any(
        isinstance(v, torch.Tensor) and v.numel() == found[1].numel()
        and torch.allclose(v.reshape(-1).to(found[1]), found[1].reshape(-1), rtol=1e-8, atol=1e-12)
        for v in values
    )  # fmt: skip
