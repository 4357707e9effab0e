"""One head of causal self-attention."""

import math

import torch

CHECK = "attention_step"


def inputs():
    torch.manual_seed(14)
    x = torch.randn(6, 5)
    wq, wk, wv = (torch.randn(5, 5) / 5**0.5 for _ in range(3))
    wo = torch.randn(5, 3)
    return x, wq, wk, wv, wo


def attention_step(x, wq, wk, wv, wo):
    t, d = x.shape[0], wq.shape[1]
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    q = x @ wq
    k = x @ wk
    v = x @ wv
    scores = q @ k.T / math.sqrt(d)
    att = scores.masked_fill(future, float("-inf")).softmax(-1)
    # = att = scores.masked_fill_(future, float("-inf")).softmax(-1)
    y = att @ v
    out = y @ wo
    loss = out.pow(2).sum()

    out.g = 2 * out
    wo.g = y.T @ out.g
    # ~ wrong-tensor: wo.g = v.T @ out.g
    # ~ missing-gradient:
    y.g = out.g @ wo.T
    att.g = y.g @ v.T
    # ~ wrong-tensor: att.g = y.g @ k.T
    # ~ upstream-dropped|wrong-tensor: att.g = y @ v.T
    # = att.g = torch.einsum("id,jd->ij", y.g, v)
    v.g = att.T @ y.g
    # ~ transposed: v.g = att @ y.g
    # ~ wrong-tensor|missing-factor: v.g = scores.T @ y.g
    scores.g = att * (att.g - (att * att.g).sum(-1, keepdim=True))
    # ~ diagonal-jacobian: scores.g = att * (1 - att) * att.g
    # ~ lost-path|missing-term|diagonal-jacobian: scores.g = att * att.g
    # ~ wrong-axis: scores.g = att * (att.g - (att * att.g).sum(0, keepdim=True))
    # ~ missing-factor: scores.g = att.g - (att * att.g).sum(-1, keepdim=True)
    # ~ wrong-term-scale: scores.g = att * (att.g + (att * att.g).sum(-1, keepdim=True))
    # ~ missing-factor: scores.g = att * (att.g - att.g.sum(-1, keepdim=True))
    # = scores.g = att * att.g - att * torch.einsum("ij,ij->i", att, att.g)[:, None]
    # = scores.g = torch.stack([(torch.diag(a) - torch.outer(a, a)) @ g for a, g in zip(att, att.g)])
    q.g = scores.g @ k / math.sqrt(d)
    # ~ wrong-scale: q.g = scores.g @ k
    # ~ wrong-scale: q.g = scores.g @ k / d
    # ~ wrong-tensor: q.g = scores.g @ q / math.sqrt(d)
    # ~ transposed: q.g = scores.g.T @ k / math.sqrt(d)
    # = q.g = (scores.g / math.sqrt(d)).matmul(k)
    k.g = scores.g.T @ q / math.sqrt(d)
    # ~ transposed: k.g = scores.g @ q / math.sqrt(d)
    # ~ wrong-tensor: k.g = scores.g.T @ k / math.sqrt(d)
    # ~ wrong-scale: k.g = scores.g.T @ q * math.sqrt(d)
    wq.g = x.T @ q.g
    # ~ wrong-tensor: wq.g = x.T @ k.g
    wk.g = x.T @ k.g
    # ~ missing-gradient:
    wv.g = x.T @ v.g
    # ~ transposed: wv.g = v.g.T @ x
    x.g = q.g @ wq.T + k.g @ wk.T + v.g @ wv.T
    # ~ lost-path|missing-term: x.g = q.g @ wq.T + k.g @ wk.T
    # ~ lost-path|missing-term: x.g = v.g @ wv.T
    # ~ wrong-tensor: x.g = q.g @ wk.T + k.g @ wq.T + v.g @ wv.T
    # ~ double-counted-path|wrong-term-scale: x.g = q.g @ wq.T + k.g @ wk.T + v.g @ wv.T + v.g @ wv.T
    # ~ transposed: x.g = q.g @ wq + k.g @ wk + v.g @ wv
    # = x.g = torch.cat([q.g, k.g, v.g], 1) @ torch.cat([wq, wk, wv], 1).T
    return loss
