"""One step of an LSTM; the loss reads the hidden state and the cell state."""

import torch

CHECK = "lstm_step"


def inputs():
    torch.manual_seed(5)
    n, d, m = 5, 3, 4
    states = [torch.randn(n, d), torch.randn(n, m), torch.randn(n, m)]
    return *states, torch.randn(d, 4 * m), torch.randn(m, 4 * m), torch.randn(4 * m)


def lstm_step(x, h_prev, c_prev, Wx, Wh, bias):
    a = x @ Wx + h_prev @ Wh + bias
    ai, af, ao, ag = a.chunk(4, dim=1)
    i, f, o = torch.sigmoid(ai), torch.sigmoid(af), torch.sigmoid(ao)
    g = torch.tanh(ag)
    c = f * c_prev + i * g
    tc = torch.tanh(c)
    h = o * tc
    loss = (h**2).sum() + c.sum()

    dh = 2 * h
    # ~ wrong-scale: dh = h
    # ~ wrong-tensor: dh = 2 * c
    do = dh * tc
    # ~ wrong-tensor|wrong-factor|missing-factor: do = dh * c
    # ~ missing-factor: do = dh
    dtc = dh * o
    # ~ wrong-tensor|wrong-factor: dtc = dh * f
    dc = dtc * (1 - tc**2) + 1
    # ~ lost-path|missing-term: dc = dtc * (1 - tc**2)
    # ~ wrong-tensor|wrong-factor: dc = dtc * (1 - c**2) + 1
    # ~ missing-factor|wrong-factor: dc = dtc + 1
    # ~ wrong-term-scale: dc = dtc * (1 - tc**2) + 1 / len(x)
    # ~ overwritten-not-accumulated|lost-path: dc = dtc * (1 - tc**2) ;; dc = torch.ones_like(c)
    # = dc = torch.addcmul(torch.ones_like(c), dtc, 1 - tc * tc)
    di, df, dg = dc * g, dc * c_prev, dc * i
    # ~ wrong-tensor|wrong-factor: di, df, dg = dc * g, dc * c, dc * i
    # ~ wrong-tensor|wrong-factor: di, df, dg = dc * i, dc * c_prev, dc * g
    dc_prev = dc * f
    # ~ missing-factor: dc_prev = dc
    # ~ wrong-tensor|wrong-factor: dc_prev = dc * i
    dai = di * i * (1 - i)
    # ~ missing-factor|wrong-factor: dai = di * (1 - i)
    # ~ wrong-factor: dai = di * (1 - i**2)
    daf = df * f * (1 - f)
    # ~ wrong-tensor|wrong-factor: daf = df * af * (1 - af)
    dao = do * o * (1 - o)
    # ~ missing-factor: dao = do
    # = dao = do * o - do * o.square()
    dag = dg * (1 - g**2)
    # ~ wrong-factor: dag = dg * g * (1 - g)
    # ~ wrong-exponent|wrong-factor: dag = dg * (1 - g)
    da = torch.cat([dai, daf, dao, dag], dim=1)
    # ~ wrong-tensor|wrong-axis: da = torch.cat([dai, daf, dag, dao], dim=1)
    dWx = x.T @ da
    dWh = h_prev.T @ da
    # ~ wrong-tensor: dWh = h.T @ da
    # ~ transposed|wrong-shape: dWh = da.T @ h_prev
    dbias = da.sum(0)
    # ~ wrong-scale: dbias = da.mean(0)
    dx = da @ Wx.T
    dh_prev = da @ Wh.T
    # ~ double-counted-path|wrong-scale: dh_prev = 2 * (da @ Wh.T)
    return loss, {"x": dx, "h_prev": dh_prev, "c_prev": dc_prev, "Wx": dWx, "Wh": dWh, "bias": dbias}
