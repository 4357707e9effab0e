"""Layers as classes, as in the course: each keeps what its backward pass needs, the model runs them in reverse."""

import torch

CHECK = "Model(w1, b1, w2, b2)"

torch.manual_seed(4)
w1 = torch.randn(5, 4) * 0.6
b1 = torch.randn(4) * 0.1
w2 = torch.randn(4, 1) * 0.5
b2 = torch.zeros(1)


def inputs():
    torch.manual_seed(5)
    return torch.randn(7, 5), torch.randn(7)


class Relu:
    def __call__(self, inp):
        self.inp = inp
        self.out = inp.clamp_min(0.0)
        return self.out

    def backward(self):
        self.inp.g = (self.inp > 0).float() * self.out.g
        # ~ missing-factor: self.inp.g = self.out.g.clone()
        # ~ wrong-mask: self.inp.g = (self.inp < 0).float() * self.out.g
        # ~ wrong-factor|wrong-tensor|double-applied: self.inp.g = self.out * self.out.g
        # ~ upstream-dropped: self.inp.g = (self.inp > 0).float()
        # = self.inp.g = torch.where(self.out > 0, self.out.g, 0.0)


class Lin:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def __call__(self, inp):
        self.inp = inp
        self.out = inp @ self.w + self.b
        return self.out

    def backward(self):
        self.inp.g = self.out.g @ self.w.t()
        # ~ wrong-scale: self.inp.g = self.out.g @ self.w.t() / self.inp.shape[0]
        # ~ upstream-dropped|wrong-tensor: self.inp.g = self.out @ self.w.t()
        self.w.g = self.inp.t() @ self.out.g
        # ~ wrong-tensor|upstream-dropped: self.w.g = self.inp.t() @ self.out
        # ~ missing-gradient (w1, w2, self.w, layers.0.w, layers.2.w):
        # = self.w.g = (self.inp.unsqueeze(-1) * self.out.g.unsqueeze(1)).sum(0)
        self.b.g = self.out.g.sum(0)
        # ~ wrong-scale: self.b.g = self.out.g.mean(0)
        # ~ missing-gradient (b1, b2, self.b, layers.0.b, layers.2.b):
        # ~ missing-broadcast-sum|wrong-shape: self.b.g = self.out.g
        # = self.b.g = torch.einsum("ij->j", self.out.g)


class Mse:
    def __call__(self, inp, targ):
        self.inp, self.targ = inp, targ
        self.out = (inp.squeeze(-1) - targ).pow(2).mean()
        return self.out

    def backward(self):
        self.inp.g = 2.0 * (self.inp.squeeze() - self.targ).unsqueeze(-1) / self.targ.shape[0]
        # ~ wrong-scale: self.inp.g = 2.0 * (self.inp.squeeze() - self.targ).unsqueeze(-1)
        # ~ sign: self.inp.g = 2.0 * (self.targ - self.inp.squeeze()).unsqueeze(-1) / self.targ.shape[0]
        # ~ wrong-scale: self.inp.g = (self.inp.squeeze() - self.targ).unsqueeze(-1) / self.targ.shape[0]


class Model:
    def __init__(self, w1, b1, w2, b2):
        self.layers = [Lin(w1, b1), Relu(), Lin(w2, b2)]
        self.loss = Mse()

    def __call__(self, x, targ):
        for layer in self.layers:
            x = layer(x)
        return self.loss(x, targ)

    def backward(self):
        self.loss.backward()
        for layer in reversed(self.layers):
            layer.backward()
