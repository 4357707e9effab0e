"""Attention, opened into the products and the softmax that it is made of (Vaswani et al., 2017, equation 1)."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import opening
from chainrule.rules.random import dropout


@opening(F.scaled_dot_product_attention)
def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.transpose(-2, -1)
    scores = scores / query.shape[-1] ** 0.5 if scale is None else scores * scale
    if is_causal:
        causal = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~causal, float("-inf"))
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        # a query that may look nowhere gets zeros, as torch has it, and no NaN on the way
        weights = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).softmax(-1)
        return dropout(weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0), dropout_p) @ value
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1)
    return dropout(weights, dropout_p) @ value
