"""A stack of small layers, each with forward and backward, run one after the other."""

import torch

CHECK = "build()"


def inputs():
    torch.manual_seed(47)
    return (torch.randn(6, 5),)


class Linear:
    def __init__(self, m, n):
        self.w = torch.randn(m, n)
        self.b = torch.randn(n)

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.dw = self.x.T @ dout
        # ~ missing-gradient (w):
        # ~ wrong-scale: self.dw = self.x.T @ dout / self.x.shape[0]
        # ~ transposed|wrong-shape: self.dw = dout.T @ self.x
        # ~ upstream-dropped: self.dw = self.x.T @ torch.ones_like(dout)
        # = self.dw = torch.einsum("ni,nj->ij", self.x, dout)
        self.db = dout.sum(dim=0)
        # ~ missing-broadcast-sum|wrong-shape: self.db = dout
        # ~ wrong-scale: self.db = dout.mean(dim=0)
        # ~ missing-gradient (b):
        return dout @ self.w.T
        # ~ sign: return -dout @ self.w.T
        # ~ wrong-scale: return dout @ self.w.T / len(dout)


class HardTanh:
    def forward(self, x):
        self.x = x
        return x.clamp(-1, 1)

    def backward(self, dout):
        return dout * (self.x.abs() < 1)
        # ~ wrong-mask: return dout * (self.x < 1)
        # ~ wrong-mask: return dout * (self.x > 0)
        # ~ wrong-mask: return dout * (self.x.abs() > 1)
        # ~ missing-factor: return dout
        # ~ upstream-dropped: return (self.x.abs() < 1).to(dout)
        # ~ wrong-factor|wrong-tensor: return dout * self.x.clamp(-1, 1)
        # = return dout * ((self.x > -1) & (self.x < 1))
        # = return torch.where(self.x.abs() < 1, dout, torch.zeros_like(dout))


class Softplus:
    def forward(self, x):
        self.x = x
        self.out = torch.nn.functional.softplus(x)
        return self.out

    def backward(self, dout):
        return dout * torch.sigmoid(self.x)
        # ~ wrong-tensor|double-applied: return dout * torch.sigmoid(self.out)
        # ~ wrong-factor: return dout * torch.tanh(self.x)
        # ~ double-applied: return dout * torch.sigmoid(self.x) * (1 - torch.sigmoid(self.x))
        # ~ missing-factor|wrong-factor: return dout * self.x.exp()
        # = return dout * (1 - torch.exp(-self.out))
        # = return dout / (1 + torch.exp(-self.x))


class Stack:
    def __init__(self, layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
            # ~ wrong-scale|double-counted-path: dout = 2 * layer.backward(dout)
        return dout


def build():
    torch.manual_seed(46)
    return Stack([Linear(5, 4), HardTanh(), Linear(4, 7), Softplus(), Linear(7, 3)])
