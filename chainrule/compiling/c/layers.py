"""Operations of aten as values: softmax, losses and norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.spellings import aten, spells
from chainrule.compiling.c.values import Value, expand, unsqueeze

# -- softmax and losses ------------------------------------------------------------------------------


@spells(aten._softmax.default)
def softmax(out: Any, x: Value, dim: int, half_to_float: bool) -> Value:
    e = c.exp(c.sub(x, c.top(x, [dim])))
    return c.div(e, c.total(e, [dim], True))


@spells(aten._log_softmax.default)
def log_softmax(out: Any, x: Value, dim: int, half_to_float: bool) -> Value:
    below = c.sub(x, c.top(x, [dim]))
    return c.sub(below, c.log(c.total(c.exp(below), [dim], True)))


@spells(aten._softmax_backward_data.default)
def softmax_backward(out: Any, g: Value, y: Value, dim: int, dtype: Any) -> Value:
    gy = c.mul(g, y)
    return c.sub(gy, c.mul(y, c.total(gy, [dim], True)))


@spells(aten._log_softmax_backward_data.default)
def log_softmax_backward(out: Any, g: Value, y: Value, dim: int, dtype: Any) -> Value:
    return c.sub(g, c.mul(c.exp(y), c.total(g, [dim], True)))


@spells(aten.nll_loss_forward.default)
def nll_loss(
    out: Any, x: Value, target: Value, weight: Value | None, reduction: int, ignored: int
) -> tuple[Value, Value]:
    counted = c.compare("!=", target, ignored)
    label = c.where(counted, target, 0, target.dtype)
    size = expand(c.lookup(weight, 0, label), target.shape) if weight else c.constant(1, x.dtype, target.shape)
    size = c.where(counted, size, 0, x.dtype)
    loss = c.where(counted, c.mul(c.neg(c.lookup(x, len(x.shape) - 1, label)), size), 0, x.dtype)
    total = c.total(size, range(len(target.shape)))
    if reduction:
        loss = c.total(loss, range(len(target.shape)))
    return c.div(loss, total) if reduction == 1 else loss, total


@spells(aten.nll_loss_backward.default)
def nll_loss_backward(
    out: Any, g: Value, x: Value, target: Value, weight: Value | None, reduction: int, ignored: int, total: Value
) -> Value:
    last = len(x.shape) - 1
    column, target = c.position(x.shape, last), unsqueeze(target, last)
    g = c.div(g, total) if reduction == 1 else unsqueeze(g, last) if g.shape else g
    g = c.mul(g, weight) if weight else g
    chosen = c.both(c.compare("==", column, target), c.compare("!=", target, ignored))
    return c.where(chosen, c.neg(g), 0, x.dtype)


# -- norms -------------------------------------------------------------------------------------------


@spells(aten.native_layer_norm.default)
def layer_norm(out: Any, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float) -> Any:
    over = range(len(x.shape) - len(shape), len(x.shape))
    centre = c.mean(x, over, True)
    distance = c.sub(x, centre)
    rate = c.div(1.0, c.sqrt(c.add(c.mean(c.mul(distance, distance), over, True), eps)))
    y = c.mul(distance, rate)
    y = c.mul(y, weight) if weight else y
    return c.add(y, bias) if bias else y, centre, rate
