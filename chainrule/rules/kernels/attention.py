"""Attention by the kernel that never holds all weights at once (Dao et al., 2022), where torch would take it too."""

import torch
import torch.nn.functional as F

from chainrule.rules import attention as ordinary
from chainrule.rules.book import KERNELS, kernel, opening, reached

aten = torch.ops.aten


def _takes_the_kernel(query, key, value, attn_mask, dropout_p, is_causal, scale):
    with torch._C.DisableTorchFunction():
        chosen = torch._fused_sdp_choice(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    return query.device.type == "cpu" and chosen == int(torch._C._SDPBackend.FLASH_ATTENTION)


@opening(F.scaled_dot_product_attention, aten.scaled_dot_product_attention, book=KERNELS)
def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    if enable_gqa:
        key, value = ordinary._for_each_query(key, query), ordinary._for_each_query(value, query)
    if not _takes_the_kernel(query, key, value, attn_mask, dropout_p, is_causal, scale):
        return ordinary.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    how = {} if attn_mask is None else {"attn_mask": attn_mask}
    how |= {} if scale is None else {"scale": scale}
    return aten._scaled_dot_product_flash_attention_for_cpu.default(query, key, value, 0.0, is_causal, **how)[0]


@kernel(aten._scaled_dot_product_flash_attention_for_cpu.default,
        samples=["r(2, 2, 5, 4), r(2, 2, 7, 4), r(2, 2, 7, 4)", "r(2, 2, 5, 4), r(2, 2, 5, 4), r(2, 2, 5, 4), 0.0, True, scale=0.3"])  # fmt: skip
def flash_attention(out, query, key, value, dropout_p=0.0, is_causal=False, attn_mask=None, scale=None):
    y, logsumexp = out
    if reached(logsumexp):
        return NotImplemented
    how = {} if attn_mask is None else {"attn_mask": attn_mask}
    how |= {} if scale is None else {"scale": scale}
    query.g, key.g, value.g = aten._scaled_dot_product_flash_attention_for_cpu_backward.default(
        y.g, query, key, value, y, logsumexp, dropout_p, is_causal, **how
    )
    if reached(attn_mask):  # which the kernel has no gradient for
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale) + attn_mask
        weights = (scores - logsumexp.unsqueeze(-1)).exp()
        attn_mask.g = weights * (y.g @ value.mT - (y.g * y).sum(-1, keepdim=True))
    return None
