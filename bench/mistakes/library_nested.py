"""A small library of layers: sequences inside of sequences, a residual block, dropout, a norm, softmax with its loss."""

import torch

CHECK = "Classifier()"


def inputs():
    torch.manual_seed(61)
    return torch.randn(9, 6), torch.randint(0, 4, (9,))


class Linear:
    def __init__(self, n_in, n_out):
        self.w = torch.randn(n_in, n_out) / n_in**0.5
        self.b = 0.1 * torch.randn(n_out)

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.dw = self.x.T @ dout
        # ~ wrong-scale: self.dw = self.x.T @ dout / len(dout)
        self.db = dout.sum(0)
        # ~ wrong-scale: self.db = dout.mean(0)
        # ~ missing-gradient (b):
        return dout @ self.w.T
        # ~ sign: return -dout @ self.w.T
        # ~ wrong-scale: return dout @ self.w.T * 0.5
        # = dx = torch.empty_like(self.x) ;; torch.matmul(dout, self.w.T, out=dx) ;; return dx


class ReLU:
    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask
        # ~ missing-factor: return dout
        # ~ missing-factor: dx = dout ;; return dx
        # ~ wrong-mask: return dout * ~self.mask
        # ~ wrong-mask: return dout * (dout > 0)
        # = dout[~self.mask] = 0 ;; return dout
        # = dx = dout.clone() ;; dx *= self.mask ;; return dx


class Tanh:
    def forward(self, x):
        self.out = torch.tanh(x)
        return self.out

    def backward(self, dout):
        return dout * (1 - self.out**2)
        # ~ missing-factor: return dout
        # ~ wrong-factor: return dout * (1 - self.out)
        # ~ upstream-dropped: return 1 - self.out**2


class Dropout:
    def __init__(self, p):
        self.p = p
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x):
        self.keep = (torch.rand(x.shape, generator=self.generator) > self.p) / (1 - self.p)
        return x * self.keep

    def backward(self, dout):
        return dout * self.keep
        # ~ missing-factor: return dout
        # ~ wrong-scale: return dout * (self.keep > 0)
        # ~ double-applied|wrong-scale: return dout * self.keep * self.keep


class LayerNorm:
    def __init__(self, d):
        self.gamma = 0.5 + torch.rand(d)
        self.beta = torch.randn(d)

    def forward(self, x):
        self.std = (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        self.xhat = (x - x.mean(-1, keepdim=True)) / self.std
        return self.gamma * self.xhat + self.beta

    def backward(self, dout):
        self.dgamma = (dout * self.xhat).sum(0)
        self.dbeta = dout.sum(0)
        d = dout * self.gamma
        # ~ missing-factor: d = dout
        d = d - d.mean(-1, keepdim=True) - self.xhat * (d * self.xhat).mean(-1, keepdim=True)
        # ~ lost-path|missing-term: d = d - self.xhat * (d * self.xhat).mean(-1, keepdim=True)
        return d / self.std
        # ~ missing-factor: return d
        # ~ wrong-factor: return d * self.std


class Residual:
    def __init__(self, *layers):
        self.inner = Sequential(*layers)

    def forward(self, x):
        return x + self.inner.forward(x)

    def backward(self, dout):
        return dout + self.inner.backward(dout)
        # ~ lost-path: return self.inner.backward(dout)
        # ~ missing-gradient|lost-path: return dout
        # ~ wrong-term-scale: return dout - self.inner.backward(dout)
        # = dx = self.inner.backward(dout.clone()) ;; dx += dout ;; return dx


class Sequential:
    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, d):
        for layer in reversed(self.layers):
            d = layer.backward(d)
            # ~ wrong-scale: d = layer.backward(d) / 2
        return d


class SoftmaxLoss:
    def forward(self, z, labels):
        self.labels = labels
        self.p = torch.softmax(z, -1)
        return -self.p[torch.arange(len(z)), labels].log().mean()

    def backward(self):
        dz = self.p.clone()
        dz[torch.arange(len(dz)), self.labels] -= 1
        # ~ wrong-term-scale|sign: dz[torch.arange(len(dz)), self.labels] += 1
        return dz / len(dz)
        # ~ wrong-scale: return dz
        # ~ sign: return -dz / len(dz)


class Classifier:
    def __init__(self):
        torch.manual_seed(62)
        self.body = Sequential(Linear(6, 7), LayerNorm(7), Residual(Linear(7, 7), Tanh(), Dropout(0.25)), ReLU())
        self.head = Linear(7, 4)
        self.criterion = SoftmaxLoss()

    def forward(self, x, labels):
        return self.criterion.forward(self.head.forward(self.body.forward(x)), labels)

    def backward(self):
        d = self.criterion.backward()
        d = self.head.backward(d)
        # ~ sign: d = -self.head.backward(d)
        self.body.backward(d)
