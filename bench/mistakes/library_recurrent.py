"""A recurrent cell as a layer that runs several times, and returns two gradients; a head that is called."""

import torch

CHECK = "Rnn()"


def inputs():
    torch.manual_seed(2)
    return torch.randn(4, 3, 5), torch.randn(3, 2)


class Cell:
    def __init__(self, n, m):
        self.Wx = torch.randn(n, m) * 0.4
        self.Wh = torch.randn(m, m) * 0.4
        self.b = torch.randn(m) * 0.1
        self.stack = []
        self.dWx = torch.zeros(n, m)
        self.dWh = torch.zeros(m, m)
        self.db = torch.zeros(m)

    def forward(self, x, h):
        out = torch.tanh(x @ self.Wx + h @ self.Wh + self.b)
        self.stack.append((x, h, out))
        return out

    def backward(self, dout):
        x, h, out = self.stack.pop()
        dz = dout * (1 - out * out)
        # ~ missing-factor: dz = dout
        # ~ wrong-factor|wrong-exponent: dz = dout * (1 - out)
        self.dWx += x.T @ dz
        self.dWh += h.T @ dz
        # ~ wrong-tensor: self.dWh += out.T @ dz
        self.db += dz.sum(0)
        return dz @ self.Wx.T, dz @ self.Wh.T
        # ~ sign: return dz @ self.Wx.T, -dz @ self.Wh.T
        # ~ missing-factor|lost-path: return dz @ self.Wx.T, dz


class Head:
    def __init__(self, n, m):
        self.w = torch.randn(n, m)

    def __call__(self, h):
        self.h = h
        return h @ self.w

    def backward(self, d):
        self.dw = self.h.T @ d
        return d @ self.w.T
        # ~ wrong-scale: return d @ self.w.T / 2


class Rnn:
    def __init__(self):
        torch.manual_seed(1)
        self.cell = Cell(5, 6)
        self.head = Head(6, 2)

    def forward(self, xs, y):
        h = torch.zeros(3, 6)
        self.T = len(xs)
        for t in range(self.T):
            h = self.cell.forward(xs[t], h)
        self.diff = self.head(h) - y
        return self.diff.pow(2).sum()

    def backward(self):
        dh = self.head.backward(2 * self.diff)
        # ~ wrong-scale: dh = self.head.backward(self.diff)
        for _ in range(self.T):
            _dx, dh = self.cell.backward(dh)
