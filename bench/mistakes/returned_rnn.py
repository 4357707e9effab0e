"""A vanilla RNN that predicts something at every step of time; weights are shared by the steps."""

import torch

CHECK = "rnn_loss"
EARLIER = torch.ones(4, 4)


def inputs():
    torch.manual_seed(7)
    steps, n, d, m, k = 4, 3, 5, 4, 2
    params = [torch.randn(d, m), torch.randn(m, m), torch.randn(m), torch.randn(m, k)]
    return torch.randn(steps, n, d), torch.randn(steps, n, k), *params


def rnn_loss(xs, ys, Wxh, Whh, bh, Why):
    steps = len(xs)
    hs = {-1: torch.zeros(xs.shape[1], Whh.shape[0])}
    preds = {}
    loss = 0.0
    for t in range(steps):
        hs[t] = torch.tanh(xs[t] @ Wxh + hs[t - 1] @ Whh + bh)
        preds[t] = hs[t] @ Why
        loss = loss + 0.5 * (preds[t] - ys[t]).pow(2).sum() / steps

    dWxh = torch.zeros_like(Wxh)
    dWhh = torch.zeros_like(Whh)
    # ~ stale-gradient: dWhh = EARLIER.clone()
    dbh, dWhy = torch.zeros_like(bh), torch.zeros_like(Why)
    dhnext = torch.zeros_like(hs[0])
    for t in reversed(range(steps)):
        dpred = (preds[t] - ys[t]) / steps
        # ~ wrong-scale: dpred = preds[t] - ys[t]
        # ~ sign: dpred = (ys[t] - preds[t]) / steps
        # ~ wrong-tensor|wrong-axis: dpred = (preds[t] - ys[t - 1]) / steps
        dWhy += hs[t].T @ dpred
        # ~ overwritten-not-accumulated|lost-path: dWhy = hs[t].T @ dpred
        # ~ wrong-tensor: dWhy += hs[t - 1].T @ dpred
        dh = dpred @ Why.T + dhnext
        # ~ lost-path: dh = dpred @ Why.T
        # ~ double-counted-path|wrong-term-scale: dh = dpred @ Why.T + 2 * dhnext
        # ~ wrong-term-scale: dh = dpred @ Why.T - dhnext
        # = dh = dhnext.addmm(dpred, Why.T)
        dz = (1 - hs[t] ** 2) * dh
        # ~ missing-factor: dz = dh
        # ~ wrong-tensor|wrong-factor: dz = (1 - hs[t - 1] ** 2) * dh
        # ~ wrong-exponent|wrong-factor: dz = (1 - hs[t]) * dh
        # ~ double-applied|wrong-exponent: dz = (1 - hs[t] ** 2) ** 2 * dh
        # = dz = dh - hs[t] * hs[t] * dh
        dbh += dz.sum(0)
        # ~ overwritten-not-accumulated|lost-path: dbh = dz.sum(0)
        # ~ missing-gradient:
        dWxh += xs[t].T @ dz
        # ~ wrong-tensor|wrong-axis: dWxh += xs[t - 1].T @ dz
        dWhh += hs[t - 1].T @ dz
        # ~ overwritten-not-accumulated|lost-path: dWhh = hs[t - 1].T @ dz
        # ~ wrong-tensor: dWhh += hs[t].T @ dz
        # ~ transposed: dWhh += dz.T @ hs[t - 1]
        # = dWhh = dWhh.add(torch.einsum("nj,nk->jk", hs[t - 1], dz))
        dhnext = dz @ Whh.T
        # ~ transposed: dhnext = dz @ Whh
        # ~ missing-factor|upstream-dropped|wrong-tensor: dhnext = dh @ Whh.T
    return loss, dWxh, dWhh, dbh, dWhy
