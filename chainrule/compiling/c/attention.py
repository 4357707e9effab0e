"""Operations of aten as values: attention, as products of stacks of matrices and a softmax of their rows."""

from __future__ import annotations

import math
from typing import Any

import torch

from chainrule.compiling.c import arithmetic as c
from chainrule.compiling.c.spellings import aten, spells
from chainrule.compiling.c.values import Position, Value, permute, squeeze, unsqueeze

TURNED = (0, 1, 3, 2)


def _past(scores: Value, causal: bool, otherwise: float) -> Value:
    """The scores, where those of what comes later may be left out."""
    if not causal:
        return scores
    now, then = (Position(scores.shape, torch.int32, dim) for dim in (2, 3))
    return c.where(c.compare(">=", now, then), scores, otherwise, scores.dtype)


def _scores(q: Value, k: Value, causal: bool, mask: Value | None, scale: float) -> Value:
    """How much each row of `q` attends to each row of `k`, before the softmax."""
    scores = c.mul(c.matmul(q, permute(k, TURNED), "result" if causal else ""), scale)
    return _past(c.add(scores, mask) if mask is not None else scores, causal, -math.inf)


@spells(aten._scaled_dot_product_flash_attention_for_cpu.default)
def attention(out: Any, q: Value, k: Value, v: Value, dropout: float = 0.0, causal: bool = False, *,
              attn_mask: Value | None = None, scale: float | None = None) -> tuple[Value, Value]:  # fmt: skip
    if dropout:
        raise NotImplementedError
    scores = _scores(q, k, causal, attn_mask, 1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    top = c.top(scores, [3])
    e = c.exp(c.sub(scores, top))
    total = c.total(e, [3], True)
    return c.mul(c.matmul(e, v, "lower" if causal else ""), c.div(1.0, total)), squeeze(c.add(top, c.log(total)), [3])


@spells(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def attention_backward(out: Any, g: Value, q: Value, k: Value, v: Value, y: Value, logsumexp: Value, dropout: float, causal: bool, *,
                       attn_mask: Value | None = None, scale: float | None = None) -> tuple[Value, Value, Value]:  # fmt: skip
    if dropout:
        raise NotImplementedError
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    p = c.exp(c.sub(_scores(q, k, causal, attn_mask, scale), unsqueeze(logsumexp, 3)))
    of_p = c.matmul(g, permute(v, TURNED), "result" if causal else "")
    of_scores = c.mul(c.mul(p, c.sub(of_p, c.total(c.mul(g, y), [3], True))), scale)
    of_scores = _past(of_scores, causal, 0.0)
    lower, upper = ("lower", "upper") if causal else ("", "")
    return (
        c.matmul(of_scores, k, lower),
        c.matmul(permute(of_scores, TURNED), q, upper),
        c.matmul(permute(p, TURNED), g, upper),
    )
