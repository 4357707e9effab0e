"""Causal multi-head attention with its four projections; the gradients come back in a dictionary."""
# ruff: noqa: F841

import math

import torch

CHECK = "attention_step"
HEADS = 2


def inputs():
    torch.manual_seed(8)
    return torch.randn(2, 5, 6), torch.randn(2, 5, 6), *(torch.randn(6, 6) / 2 for _ in range(4))


def split(v):
    return v.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def merge(v):
    return v.transpose(1, 2).flatten(2)


def attention_step(x, y, wq, wk, wv, wo):
    steps = x.shape[1]
    keep = torch.ones(steps, steps).tril().bool()
    q, k, v = split(x @ wq), split(x @ wk), split(x @ wv)
    scale = 1 / math.sqrt(q.shape[-1])
    scores = (q @ k.transpose(-2, -1) * scale).masked_fill(~keep, float("-inf"))
    att = scores.softmax(-1)
    ctx = merge(att @ v)
    out = x + ctx @ wo
    loss = ((out - y) ** 2).mean()

    dout = 2 * (out - y) / out.numel()
    # ~ wrong-scale: dout = 2 * (out - y) / x.shape[0]
    # ~ sign: dout = 2 * (y - out) / out.numel()
    dwo = ctx.flatten(0, 1).T @ dout.flatten(0, 1)
    # ~ wrong-tensor: dwo = x.flatten(0, 1).T @ dout.flatten(0, 1)
    # ~ transposed: dwo = dout.flatten(0, 1).T @ ctx.flatten(0, 1)
    # ~ missing-broadcast-sum|wrong-shape: dwo = ctx.transpose(1, 2) @ dout
    # ~ wrong-axis|wrong-scale: dwo = (ctx.transpose(1, 2) @ dout).mean(0)
    # = dwo = torch.einsum("bti,btj->ij", ctx, dout)
    dctx = split(dout @ wo.T)
    # ~ transposed: dctx = split(dout @ wo)
    datt = dctx @ v.transpose(-2, -1)
    # ~ wrong-tensor: datt = dctx @ k.transpose(-2, -1)
    dv = att.transpose(-2, -1) @ dctx
    # ~ transposed: dv = att @ dctx
    # ~ wrong-tensor: dv = att.transpose(-2, -1) @ v
    # = dv = torch.einsum("bhts,bhtd->bhsd", att, dctx)
    dscores = att * (datt - (datt * att).sum(-1, keepdim=True))
    # ~ diagonal-jacobian|wrong-factor: dscores = datt * att * (1 - att)
    # ~ missing-term|lost-path: dscores = att * datt
    # ~ wrong-axis: dscores = att * (datt - (datt * att).sum(-2, keepdim=True))
    # ~ wrong-axis|wrong-scale|wrong-term-scale: dscores = att * (datt - (datt * att).mean(-1, keepdim=True))
    # ~ wrong-term-scale: dscores = att * (datt + (datt * att).sum(-1, keepdim=True))
    # ~ missing-factor: dscores = datt - (datt * att).sum(-1, keepdim=True)
    # = dscores = datt * att - att * torch.einsum("bhts,bhts->bht", datt, att)[..., None]
    # = dscores = (torch.diag_embed(att) - att[..., :, None] * att[..., None, :]).matmul(datt[..., None])[..., 0]
    dq = dscores @ k * scale
    # ~ wrong-scale|missing-factor: dq = dscores @ k
    # ~ wrong-tensor: dq = dscores @ q * scale
    # ~ double-applied|wrong-scale: dq = dscores @ k * scale * scale
    dk = dscores.transpose(-2, -1) @ q * scale
    # ~ transposed: dk = dscores @ q * scale
    # ~ wrong-tensor: dk = dscores.transpose(-2, -1) @ k * scale
    # ~ wrong-scale|missing-factor: dk = dscores.transpose(-2, -1) @ q
    # ~ wrong-scale: dk = dscores.transpose(-2, -1) @ q / math.sqrt(x.shape[-1])
    dq, dk, dv = merge(dq), merge(dk), merge(dv)
    grads = {}
    grads["wq"] = torch.einsum("bti,btj->ij", x, dq)
    # ~ wrong-tensor: grads["wq"] = torch.einsum("bti,btj->ij", x, dk)
    grads["wk"] = torch.einsum("bti,btj->ij", x, dk)
    # ~ missing-gradient (wk):
    grads["wv"] = torch.einsum("bti,btj->ij", x, dv)
    # ~ transposed: grads["wv"] = torch.einsum("bti,btj->ji", x, dv)
    grads["wo"] = dwo
    grads["x"] = dout + dq @ wq.T + dk @ wk.T + dv @ wv.T
    # ~ lost-path: grads["x"] = dq @ wq.T + dk @ wk.T + dv @ wv.T
    # ~ lost-path: grads["x"] = dout + dq @ wq.T + dv @ wv.T
    # ~ double-counted-path: grads["x"] = dout + dq @ wq.T + dk @ wk.T + dv @ wv.T + dv @ wv.T
    # ~ wrong-tensor|transposed: grads["x"] = dout + dq @ wk.T + dk @ wq.T + dv @ wv.T
    # = grads["x"] = dout + torch.cat([dq, dk, dv], -1) @ torch.cat([wq, wk, wv], 1).T
    return grads
