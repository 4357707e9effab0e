"""Identities of layer norm, batch norm and RMS norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from chainrule.diagnosis.truth.case import Point, same
from chainrule.diagnosis.truth.equal_forms import ZERO, Forms, Found, operation, peeled
from chainrule.run import double, needed, step

_REDUCTIONS = ("sum", "mean", "sum_to_size")


def in_one_step(forms: Forms) -> Iterator[Found]:
    """The compact formula of a norm, where the derived pass adds the paths through mean and variance."""
    x, case = forms.claim.value, forms.case
    if not any(n.meta.get("accumulated") for n in forms.theirs) or not isinstance(x.meta["val"], torch.Tensor):
        return
    for xhat in _normalised(forms, x):
        inner = [n for n in needed([xhat], given=[x]) if n not in (x, xhat)]
        if any(c.value in inner for c in forms.above):
            continue
        small = [n for n in inner if n in case.base.gradients and _is_statistic(n, x)]
        steps = [case.base.gradients[n] for n in small]
        if len(steps) < 2 or any(forms.has_value(g) for g in steps if g in forms.points.here.values):
            continue  # the person goes through the mean or the variance as well
        for centred, slug in ((True, "norm-in-one-step"), (False, "rms-norm-in-one-step")):
            if all(_is_compact(p, x, xhat, centred) for p in forms.points.all()):
                yield slug, forms.claim.node
                return


def centred_sums(forms: Forms) -> Iterator[Found]:
    """The derived line sums a path over the deviations from a mean, which gives zero; the person leaves it out."""
    for total in forms.theirs_with(*_REDUCTIONS):
        inner = peeled(total.args[0])
        added = inner.args[0] if operation(inner) == "neg" else inner
        if operation(added) != "add" or not added.meta.get("accumulated") or forms.has_value(added):
            continue
        for part in added.all_input_nodes:
            others = [n for n in added.all_input_nodes if n is not part]
            absent = part in forms.points.here.values and not forms.has_value(part)
            if (
                absent
                and len(others) == 1
                and _sums_to_zero(forms, total, part)
                and _sums_only(forms, total, others[0])
            ):
                yield "centred-sum", forms.claim.node


RULES = [in_one_step, centred_sums]


def _normalised(forms: Forms, x: fx.Node) -> Iterator[fx.Node]:
    """Values of the shape of `x`, made from it by a root and a quotient."""
    shape = x.meta["val"].shape
    for node in forms.case.forward:
        if operation(node) in ("mul", "div") and getattr(node.meta["val"], "shape", None) == shape and node is not x:
            above = needed([node], given=[x])
            roots = {"sqrt", "rsqrt", "pow", "std"}
            if x in above and any(operation(n) in roots for n in above) and node in forms.case.base.gradients:
                yield node


def _is_statistic(node: fx.Node, x: fx.Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, torch.Tensor) and 0 < value.numel() < x.meta["val"].numel()


def _is_compact(point: Point, x: fx.Node, xhat: fx.Node, centred: bool) -> bool:
    """Whether (g - g.mean() - xhat * (g * xhat).mean()) is proportional to the gradient, along some axis."""
    hat, g, truth = point.values.get(xhat), point.truth(xhat), point.truth(x)
    if hat is None or not bool(truth.any()):
        return False
    for axes in {(hat.ndim - 1,), (0,), tuple(range(1, hat.ndim)), (0, *range(2, hat.ndim))}:
        if not axes or max(axes) >= hat.ndim or hat.ndim < 2:
            continue
        n = hat.numel() / hat.sum(axes).numel()
        middle = hat.mean(axes, keepdim=True)
        if n < 2 or (centred and not bool((middle.abs() <= 1e-9 * hat.abs().amax()).all())):
            continue
        spread = double(point.values[x])
        spread = spread - spread.mean(axes, keepdim=True) if centred else spread
        scale = (hat * spread).sum(axes, keepdim=True) / (spread * spread).sum(axes, keepdim=True)  # 1 / std
        size = (hat * hat).mean(axes, keepdim=True)
        if not bool(torch.isfinite(scale).all()) or not bool(((size - 1).abs() <= 0.5).all()):
            continue
        rest = g - g.mean(axes, keepdim=True) if centred else g
        for unit in (n, n - 1):  # N - 1 in the variance
            if same((rest - hat * (g * hat).sum(axes, keepdim=True) / unit) * scale, truth):
                return True
    return False


def _sums_to_zero(forms: Forms, total: fx.Node, part: fx.Node) -> bool:
    """Whether a reduction of the derived line gives zero for one path, by cancellation, at every point."""
    for point in forms.points.all():
        value = point.values.get(part)
        if not isinstance(value, torch.Tensor) or not bool(value.any()):
            return False
        swapped = {r: point.values[r] for r in total.all_input_nodes if r in point.values}
        swapped[total.args[0]] = value  # type: ignore[index]
        try:
            left = step(total, swapped, double)
            size = step(total, {**swapped, total.args[0]: value.abs()}, double)  # type: ignore[dict-item]
        except (RuntimeError, KeyError, TypeError):
            return False
        if not bool((left.abs() <= ZERO * size.abs().amax()).all()):
            return False
    return True


def _sums_only(forms: Forms, total: fx.Node, part: fx.Node) -> bool:
    """Whether the person sums what is `part` but for a factor that the sum leaves alone, and adds no zero."""
    values = forms.points.here.values
    goal, kept = values[part], values[total]
    if any(_is_zero(values.get(n), kept) for n in forms.mine):
        return False
    operands = [values.get(peeled(n.args[0])) for n in forms.mine_with(*_REDUCTIONS)]
    for value in operands:
        if not isinstance(value, torch.Tensor) or value.shape != goal.shape:
            continue
        ratio = value / goal
        for axis in (a for a in range(goal.ndim) if goal.sum(a).numel() == kept.numel()):
            first = ratio.narrow(axis, 0, 1)
            if bool(((ratio - first).abs() <= 1e-8 * first.abs()).all()):
                return True
    return False


def _is_zero(value: Any, like: torch.Tensor) -> bool:
    if not isinstance(value, torch.Tensor) or value.numel() != like.numel():
        return False
    return bool((value.abs() <= ZERO * like.abs().amax()).all())
