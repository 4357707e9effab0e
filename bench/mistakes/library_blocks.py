"""Blocks of layers with a residual around them, gradients in dictionaries, every layer called as a function."""

import torch

CHECK = "Net()"


def inputs():
    torch.manual_seed(2)
    return torch.randn(7, 4), torch.randint(0, 3, (7,))


class Layer:
    def __call__(self, *a):
        return self.forward(*a)


class Linear(Layer):
    def __init__(self, a, b):
        self.p = {"w": torch.randn(a, b) * 0.6, "b": torch.randn(b)}
        self.g = {}

    def forward(self, x):
        self.x = x
        return x @ self.p["w"] + self.p["b"]

    def backward(self, g):
        self.g["w"] = self.x.T @ g
        # ~ transposed|wrong-shape: self.g["w"] = g.T @ self.x
        self.g["b"] = g.sum(0)
        # ~ wrong-scale: self.g["b"] = g.mean(0)
        return g @ self.p["w"].T
        # ~ wrong-scale: return 2 * g @ self.p["w"].T


class Gelu(Layer):
    def forward(self, x):
        self.x = x
        self.phi = torch.sigmoid(1.702 * x)
        return x * self.phi

    def backward(self, g):
        return g * (self.phi + 1.702 * self.x * self.phi * (1 - self.phi))
        # ~ missing-factor|missing-term|lost-path|wrong-factor: return g * self.phi
        # ~ missing-factor: return g
        # ~ wrong-factor|missing-factor|wrong-scale|wrong-term-scale: return g * (self.phi + self.x * self.phi * (1 - self.phi))


class Norm(Layer):
    def __init__(self, n):
        self.p = {"gain": torch.rand(n) + 0.5}
        self.g = {}

    def forward(self, x):
        self.r = (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
        self.xh = x * self.r
        return self.xh * self.p["gain"]

    def backward(self, g):
        self.g["gain"] = (g * self.xh).sum(0)
        d = g * self.p["gain"]
        # ~ missing-factor: d = g
        return self.r * (d - self.xh * (d * self.xh).mean(-1, keepdim=True))
        # ~ lost-path|diagonal-jacobian: return self.r * d


class Block(Layer):
    def __init__(self, n):
        self.norm, self.up, self.act, self.down = Norm(n), Linear(n, 2 * n), Gelu(), Linear(2 * n, n)

    def forward(self, x):
        return x + self.down(self.act(self.up(self.norm(x))))

    def backward(self, g):
        d = self.norm.backward(self.up.backward(self.act.backward(self.down.backward(g))))
        # ~ missing-gradient|missing-factor: d = self.up.backward(self.act.backward(self.down.backward(g)))
        return g + d
        # ~ lost-path: return d
        # ~ lost-path|missing-term: return g


class CrossEntropy(Layer):
    def forward(self, z, y):
        self.q, self.y = z.softmax(-1), y
        return -z.log_softmax(-1)[torch.arange(len(y)), y].mean()

    def backward(self):
        one = torch.nn.functional.one_hot(self.y, self.q.shape[1])
        return (self.q - one) / len(one)
        # ~ wrong-scale: return self.q - one
        # ~ sign: return (one - self.q) / len(one)
        # ~ double-applied: return self.q * (1 - self.q) * (self.q - one) / len(one)


class Net(Layer):
    def __init__(self):
        torch.manual_seed(1)
        self.blocks = [Block(4), Block(4)]
        self.head = Linear(4, 3)
        self.loss = CrossEntropy()

    def forward(self, x, y):
        for b in self.blocks:
            x = b(x)
        return self.loss(self.head(x), y)

    def backward(self):
        d = self.head.backward(self.loss.backward())
        for b in reversed(self.blocks):
            d = b.backward(d)
        return d
