"""Layers whose parameters divide by the batch, so that what is handed on is the gradient times the batch size."""

import torch

CHECK = "Net()"


def inputs():
    torch.manual_seed(2)
    return torch.randn(8, 5), torch.randn(8, 3)


class Linear:
    def __init__(self, a, b):
        self.W = torch.randn(a, b) * 0.5
        self.b = torch.randn(b)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, delta):
        m = delta.shape[0]
        self.dW = self.x.T @ delta / m
        # ~ sign: self.dW = -self.x.T @ delta / m
        self.db = delta.sum(0) / m
        # ~ sign: self.db = -delta.sum(0) / m
        return delta @ self.W.T
        # ~ sign: return -delta @ self.W.T


class Relu:
    def forward(self, z):
        self.z = z
        return z.clamp(min=0)

    def backward(self, delta):
        return delta * (self.z > 0)
        # ~ missing-factor: return delta
        # ~ wrong-mask: return delta * (self.z < 0)


class Net:
    def __init__(self):
        torch.manual_seed(1)
        self.layers = [Linear(5, 6), Relu(), Linear(6, 6), Relu(), Linear(6, 3)]

    def forward(self, x, y):
        a = x
        for layer in self.layers:
            a = layer.forward(a)
        self.out, self.y = a, y
        return 0.5 * ((a - y) ** 2).sum() / len(y)

    def backward(self):
        delta = self.out - self.y
        # ~ sign: delta = self.y - self.out
        # ~ wrong-scale: delta = 2 * (self.out - self.y)
        for layer in reversed(self.layers):
            delta = layer.backward(delta)
