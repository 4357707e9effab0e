"""Attention, opened into the products and the softmax that it is made of (Vaswani et al., 2017, equation 1)."""

import torch
import torch.nn.functional as F

from chainrule.rules.book import opening, rule
from chainrule.rules.random import dropout


@rule(torch.ops.aten._safe_softmax, samples=["r(3, 4), 1", "r(2, 3, 4), 0"],
      note="a row that is -inf everywhere gives zeros, and gets zeros")  # fmt: skip
def safe_softmax(out, x, dim, dtype=None):
    x.g = out * (out.g - (out.g * out).sum(dim, keepdim=True))


@opening(torch.ops.aten._softmax_backward_data)
def softmax_backward(grad_output, output, dim, input_dtype):
    return (output * (grad_output - (grad_output * output).sum(dim, keepdim=True))).to(input_dtype)


@opening(torch.ops.aten._log_softmax_backward_data)
def log_softmax_backward(grad_output, output, dim, input_dtype):
    return (grad_output - output.exp() * grad_output.sum(dim, keepdim=True)).to(input_dtype)


@opening(F.softmax)
def softmax_of_an_unnamed_axis(input, dim=None, _stacklevel=3, dtype=None):
    if dim is not None:
        return NotImplemented
    return F.softmax(input, F._get_softmax_dim("softmax", input.dim(), _stacklevel), dtype=dtype)


@opening(F.log_softmax)
def log_softmax_of_an_unnamed_axis(input, dim=None, _stacklevel=3, dtype=None):
    if dim is not None:
        return NotImplemented
    return F.log_softmax(input, F._get_softmax_dim("log_softmax", input.dim(), _stacklevel), dtype=dtype)


def _weights(query, key, attn_mask, is_causal, scale):
    """How much each query takes from each key."""
    scores = query @ key.transpose(-2, -1)
    scores = scores / query.shape[-1] ** 0.5 if scale is None else scores * scale
    if is_causal:
        causal = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~causal, float("-inf"))
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        # a query that may look nowhere gets zeros, as torch has it, and no NaN on the way
        weights = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min).softmax(-1)
        return weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0)
    elif attn_mask is not None:
        return torch.ops.aten._safe_softmax(scores + attn_mask, -1)
    return scores.softmax(-1)


def _for_each_query(x, query):
    """The heads of keys or values, each repeated for the queries that share it (grouped-query attention)."""
    groups = query.shape[-3] // x.shape[-3]
    return x.repeat_interleave(groups, -3)


@opening(F.scaled_dot_product_attention, torch.ops.aten.scaled_dot_product_attention)
def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    if enable_gqa:
        key, value = _for_each_query(key, query), _for_each_query(value, query)
    weights = dropout(_weights(query, key, attn_mask, is_causal, scale), dropout_p)
    return weights @ value


@opening(torch._scaled_dot_product_attention_math, torch.ops.aten._scaled_dot_product_attention_math)
def attention_with_its_weights(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    dropout_mask=None,
    *,
    scale=None,
    enable_gqa=False,
):
    if enable_gqa:
        key, value = _for_each_query(key, query), _for_each_query(value, query)
    weights = _weights(query, key, attn_mask, is_causal, scale)
    if dropout_mask is None:
        weights = dropout(weights, dropout_p)
        return weights @ value, weights
    weights = weights.masked_fill(~dropout_mask, 0)
    return weights @ (value / (1 - dropout_p)), weights


@opening(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)
def flash_attention(query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
    out = dropout(_weights(query, key, attn_mask, is_causal, scale), dropout_p) @ value
    with torch._C.DisableTorchFunction(), torch.no_grad():  # the second result carries no gradient
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        _, logsumexp = flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)
    return out, logsumexp
