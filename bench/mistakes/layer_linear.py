"""A fully connected layer with relu in the from-scratch style; the gradients become attributes."""

import torch

CHECK = "Dense(w, b)"

torch.manual_seed(40)
w, b = torch.randn(5, 4), torch.randn(4)


def inputs():
    torch.manual_seed(41)
    return (torch.randn(6, 5),)


class Dense:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.x = x
        self.z = x @ self.w + self.b
        return self.z.clamp(min=0)

    def backward(self, dout):
        dz = dout * (self.z > 0)
        # ~ missing-factor: dz = dout
        # ~ wrong-mask: dz = dout * (self.z < 0)
        # ~ wrong-mask|wrong-tensor: dz = dout * (dout > 0)
        # ~ wrong-factor|wrong-tensor|double-applied: dz = dout * self.z.clamp(min=0)
        # ~ upstream-dropped: dz = (self.z > 0).to(dout)
        # = dz = dout.masked_fill(self.z <= 0, 0)
        # = dz = dout * torch.heaviside(self.z, torch.tensor(0.0).to(self.z))
        self.dw = self.x.T @ dz
        # ~ transposed|wrong-shape: self.dw = dz.T @ self.x
        # ~ wrong-scale: self.dw = self.x.T @ dz / len(self.x)
        # ~ wrong-tensor|missing-factor: self.dw = self.x.T @ dout
        # ~ stale-parameter: self.dw = self.x.T @ dz ;; self.w = self.w - 0.1 * self.dw
        # ~ missing-gradient (w):
        self.db = dz.sum(0)
        # ~ wrong-scale: self.db = dz.mean(0)
        # ~ wrong-shape: self.db = dz.sum(0, keepdim=True)
        # ~ wrong-axis|wrong-shape: self.db = dz.sum(1)
        # ~ missing-gradient (b):
        # = self.db = torch.einsum("ij->j", dz)
        dx = dz @ self.w.T
        # ~ wrong-tensor|missing-factor: dx = dout @ self.w.T
        # ~ sign: dx = -dz @ self.w.T
        # = dx = (self.w @ dz.T).T
        return dx
