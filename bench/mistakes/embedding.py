"""An embedding lookup with repeated tokens, averaged over a context and classified."""

import torch
import torch.nn.functional as F

CHECK = "step"


def inputs():
    torch.manual_seed(17)
    tokens = torch.tensor([[0, 3, 3], [5, 1, 0], [3, 2, 3], [6, 6, 6]])
    targets = torch.tensor([1, 0, 4, 2])
    table, w, b = torch.randn(7, 4), torch.randn(4, 5), torch.randn(5)
    return tokens, targets, table, w, b


def step(tokens, targets, table, w, b):
    batch, context = tokens.shape
    emb = table[tokens]  # (batch, context, 4)
    pooled = emb.mean(1)
    logits = pooled @ w + b
    loss = F.cross_entropy(logits, targets)

    logits.g = logits.softmax(1)
    logits.g[torch.arange(batch), targets] -= 1
    # ~ wrong-axis: logits.g[:, targets] -= 1
    # ~ wrong-term-scale|sign: logits.g[torch.arange(batch), targets] += 1
    # ~ missing-term (logits):
    logits.g /= batch
    # ~ wrong-scale (logits):
    # ~ wrong-scale: logits.g /= logits.numel()
    # = logits.g.mul_(1 / len(targets))
    w.g = pooled.T @ logits.g
    # ~ wrong-scale|wrong-tensor: w.g = emb.sum(1).T @ logits.g
    # ~ wrong-tensor: w.g = emb[:, 0].T @ logits.g
    b.g = logits.g.sum(0)
    # ~ missing-gradient:
    pooled.g = logits.g @ w.T
    emb.g = pooled.g[:, None, :].expand(-1, context, -1) / context
    # ~ wrong-scale: emb.g = pooled.g[:, None, :].expand(-1, context, -1) * 1.0
    # ~ wrong-scale: emb.g = pooled.g[:, None, :].expand(-1, context, -1) / batch
    # = emb.g = torch.stack([pooled.g / context] * context, dim=1)
    table.g = torch.zeros_like(table)
    table.g.index_add_(0, tokens.flatten(), emb.g.flatten(0, 1))
    # ~ index-overwrite: table.g[tokens] = emb.g
    # ~ index-overwrite: table.g[tokens] += emb.g
    # ~ index-overwrite: table.g.index_copy_(0, tokens.flatten(), emb.g.flatten(0, 1))
    # ~ index-overwrite: table.g.scatter_(0, tokens.flatten()[:, None].expand(-1, 4), emb.g.flatten(0, 1))
    # ~ sign: table.g.index_add_(0, tokens.flatten(), emb.g.flatten(0, 1), alpha=-1)
    # ~ lost-path|missing-term|wrong-axis: table.g.index_add_(0, tokens[:, 0], emb.g[:, 0])
    # = table.g += F.one_hot(tokens, 7).float().flatten(0, 1).T @ emb.g.flatten(0, 1)
    # = table.g.index_put_((tokens,), emb.g, accumulate=True)
    return loss
