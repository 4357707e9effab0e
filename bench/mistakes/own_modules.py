"""A network of layers that inherit from chainrule's Module, with `bwd` written by hand."""

import torch

from chainrule import Module

CHECK = "Net()"


def inputs():
    torch.manual_seed(6)
    return torch.randn(5, 6), torch.randn(5, 3)


class Linear(Module):
    def __init__(self, n_in, n_out):
        self.w = torch.randn(n_in, n_out) / n_in**0.5
        self.b = torch.zeros(n_out)

    def forward(self, inp):
        return inp @ self.w + self.b

    def bwd(self, out, inp):
        inp.g = out.g @ self.w.t()
        # ~ sign: inp.g = -out.g @ self.w.t()
        self.w.g = inp.t() @ out.g
        # ~ wrong-scale: self.w.g = inp.t() @ out.g / len(inp)
        # = self.w.g = torch.einsum("bi,bj->ij", inp, out.g)
        self.b.g = out.g.sum(0)
        # ~ wrong-shape: self.b.g = out.g.sum(0, keepdim=True)
        # ~ missing-gradient (first.b, second.b, self.b, self.first.b, self.second.b):


class Tanh(Module):
    def forward(self, inp):
        return torch.tanh(inp)

    def bwd(self, out, inp):
        inp.g = out.g * (1 - out**2)
        # ~ missing-term: inp.g = out.g * (-(out**2))
        # ~ wrong-exponent: inp.g = out.g * (1 - out)
        # ~ wrong-tensor: inp.g = out.g * (1 - inp**2)
        # ~ wrong-factor|wrong-term-scale: inp.g = out.g * (1 + out**2)
        # ~ upstream-dropped: inp.g = 1 - out**2
        # = inp.g = out.g / torch.cosh(inp) ** 2


class SquareError(Module):
    def forward(self, inp, targ):
        return (inp - targ).square().mean()

    def bwd(self, out, inp, targ):
        inp.g = 2 * (inp - targ) / targ.numel()
        # ~ wrong-scale: inp.g = 2 * (inp - targ) / len(targ)
        # ~ wrong-tensor|missing-term: inp.g = 2 * inp / targ.numel()
        # = inp.g = (inp - targ) * (2 / targ.nelement())


class Net(Module):
    def __init__(self):
        torch.manual_seed(7)
        self.first, self.act, self.second = Linear(6, 4), Tanh(), Linear(4, 3)
        self.error = SquareError()

    def forward(self, x, targ):
        return self.error(self.second(self.act(self.first(x))), targ)

    def bwd(self, out, x, targ):
        self.error.backward()
        self.second.backward()
        self.act.backward()
        self.first.backward()
