"""An LSTM over a few steps of time, with a linear read-out of the last state."""

import torch

CHECK = "bptt"


def inputs():
    torch.manual_seed(6)
    steps, n, d, m = 3, 5, 2, 4
    weights = [0.5 * torch.randn(d + m, 4 * m), torch.randn(4 * m), torch.randn(m, 3)]
    return torch.randn(steps, n, d), torch.randn(n, 3), *weights


def bptt(xs, y, W, b, V):
    n, m = xs.shape[1], V.shape[0]
    h, c = torch.zeros(n, m), torch.zeros(n, m)
    caches = []
    for x in xs:
        xh = torch.cat([x, h], dim=1)
        gates = xh @ W + b
        i = torch.sigmoid(gates[:, :m])
        f = torch.sigmoid(gates[:, m : 2 * m])
        o = torch.sigmoid(gates[:, 2 * m : 3 * m])
        g = torch.tanh(gates[:, 3 * m :])
        c_old, c = c, f * c + i * g
        h = o * torch.tanh(c)
        caches.append((xh, i, f, o, g, c_old, c))
    out = h @ V
    loss = (out - y).pow(2).mean()

    dout = 2 * (out - y) / out.numel()
    # ~ wrong-scale: dout = 2 * (out - y) / n
    # ~ wrong-scale: dout = (out - y) / out.numel()
    dV = h.T @ dout
    # ~ wrong-tensor: dV = c.T @ dout
    dW, db = torch.zeros_like(W), torch.zeros_like(b)
    dh, dc = dout @ V.T, torch.zeros_like(c)
    for xh, i, f, o, g, c_old, c_t in reversed(caches):
        tc = torch.tanh(c_t)
        # ~ wrong-tensor: tc = torch.tanh(c)
        # ~ missing-factor|wrong-tensor: tc = c_t
        dc = dc + dh * o * (1 - tc**2)
        # ~ overwritten-not-accumulated|lost-path: dc = dh * o * (1 - tc**2)
        # ~ missing-factor|wrong-factor: dc = dc + dh * o
        # ~ missing-factor|wrong-factor: dc = dc + dh * (1 - tc**2)
        # = dc = dc.addcmul(dh * o, 1 - tc.square())
        di = dc * g * i * (1 - i)
        # ~ missing-factor: di = dc * g
        # ~ missing-factor: di = dc * i * (1 - i)
        df = dc * c_old * f * (1 - f)
        # ~ wrong-tensor|wrong-factor: df = dc * c_t * f * (1 - f)
        do = dh * tc * o * (1 - o)
        # ~ wrong-exponent|double-applied|wrong-factor: do = dh * tc * (o * (1 - o)) ** 2
        dg = dc * i * (1 - g**2)
        dgates = torch.cat([di, df, do, dg], dim=1)
        dW += xh.T @ dgates
        # ~ overwritten-not-accumulated|lost-path: dW = xh.T @ dgates
        # ~ sign: dW -= xh.T @ dgates
        # ~ wrong-scale: dW += xh.T @ dgates / n
        # = dW = dW + torch.einsum("nk,ng->kg", xh, dgates)
        db += dgates.sum(0)
        # ~ overwritten-not-accumulated|lost-path: db = dgates.sum(0)
        # ~ wrong-scale: db += dgates.mean(0)
        dh = (dgates @ W.T)[:, -m:]
        # ~ wrong-axis|wrong-tensor|wrong-mask: dh = (dgates @ W.T)[:, :m]
        # = dh = dgates @ W[-m:].T
        dc = dc * f
        # ~ missing-factor:
        # ~ wrong-tensor|wrong-factor: dc = dc * i
    return loss, dW, db, dV
