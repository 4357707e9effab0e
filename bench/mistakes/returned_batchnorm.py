"""Batch norm by the long chain of single steps, as it is taught: one gradient to a line."""

import torch

CHECK = "bn_step"


def inputs():
    torch.manual_seed(9)
    return 2 * torch.randn(6, 5) + 1, torch.randn(6, 5), torch.randn(5), torch.randn(5)


def bn_step(x, target, gamma, beta, eps=1e-5):
    N, _D = x.shape
    mu = 1.0 / N * x.sum(0)
    xmu = x - mu
    sq = xmu**2
    var = 1.0 / N * sq.sum(0)
    sqrtvar = torch.sqrt(var + eps)
    ivar = 1.0 / sqrtvar
    xhat = xmu * ivar
    gammax = gamma * xhat
    out = gammax + beta
    loss = (out * target).sum()

    dout = target
    dbeta = dout.sum(0)
    # ~ wrong-scale: dbeta = dout.mean(0)
    # ~ wrong-shape: dbeta = dout.sum(0, keepdim=True)
    # ~ wrong-axis|wrong-shape: dbeta = dout.sum(1)
    dgammax = dout
    dgamma = (dgammax * xhat).sum(0)
    # ~ wrong-tensor|missing-factor|wrong-factor: dgamma = (dgammax * xmu).sum(0)
    # ~ missing-factor: dgamma = dgammax.sum(0)
    # ~ missing-broadcast-sum|wrong-shape: dgamma = dgammax * xhat
    # ~ wrong-scale: dgamma = (dgammax * xhat).mean(0)
    # ~ upstream-dropped: dgamma = xhat.sum(0)
    # = dgamma = torch.einsum("nd,nd->d", dgammax, xhat)
    dxhat = dgammax * gamma
    # ~ missing-factor: dxhat = dgammax
    # ~ wrong-tensor|wrong-factor: dxhat = dgammax * beta
    divar = (dxhat * xmu).sum(0)
    # ~ wrong-tensor|wrong-factor: divar = (dxhat * xhat).sum(0)
    # ~ sign: divar = -(dxhat * xmu).sum(0)
    dxmu1 = dxhat * ivar
    # ~ missing-factor: dxmu1 = dxhat
    # ~ wrong-tensor|wrong-exponent|wrong-factor: dxmu1 = dxhat * sqrtvar
    # = dxmu1 = dxhat / sqrtvar
    dsqrtvar = -1.0 / sqrtvar**2 * divar
    # ~ sign: dsqrtvar = 1.0 / sqrtvar**2 * divar
    # ~ wrong-exponent: dsqrtvar = -1.0 / sqrtvar * divar
    # = dsqrtvar = -divar * ivar.square()
    dvar = 0.5 / torch.sqrt(var + eps) * dsqrtvar
    # ~ wrong-scale: dvar = 1.0 / torch.sqrt(var + eps) * dsqrtvar
    # ~ wrong-exponent: dvar = 0.5 * torch.sqrt(var + eps) * dsqrtvar
    # ~ wrong-exponent|wrong-tensor: dvar = 0.5 / (var + eps) * dsqrtvar
    # = dvar = dsqrtvar / (2 * sqrtvar)
    dsq = 1.0 / N * torch.ones_like(sq) * dvar
    # ~ wrong-scale: dsq = torch.ones_like(sq) * dvar
    # ~ wrong-scale: dsq = 1.0 / (N - 1) * torch.ones_like(sq) * dvar
    # = dsq = (dvar / N).expand(N, -1)
    dxmu2 = 2 * xmu * dsq
    # ~ wrong-scale: dxmu2 = xmu * dsq
    # ~ wrong-tensor|wrong-factor: dxmu2 = 2 * xhat * dsq
    # = dxmu2 = 2 * x * dsq
    dx1 = dxmu1 + dxmu2
    # ~ lost-path: dx1 = dxmu1
    # ~ wrong-term-scale: dx1 = dxmu1 - dxmu2
    # ~ double-counted-path: dx1 = dxmu1 + 2 * dxmu2
    dmu = -1 * (dxmu1 + dxmu2).sum(0)
    # ~ sign: dmu = (dxmu1 + dxmu2).sum(0)
    # = dmu = -dx1.sum(0)
    dx2 = 1.0 / N * torch.ones_like(x) * dmu
    # ~ wrong-scale: dx2 = torch.ones_like(x) * dmu
    dx = dx1 + dx2
    # ~ lost-path: dx = dx1
    # ~ wrong-term-scale: dx = dx1 - dx2
    return loss, dx, dgamma, dbeta
