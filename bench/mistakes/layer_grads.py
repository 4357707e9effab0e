"""A one-hidden-layer block whose gradients are kept in a dictionary, used for a second time."""

import torch

CHECK = "used()"


def inputs():
    torch.manual_seed(43)
    return (torch.randn(6, 5),)


class Block:
    def __init__(self, n_in, n_hidden):
        self.params = {
            "w1": torch.randn(n_in, n_hidden),
            "b1": torch.randn(n_hidden),
            "w2": torch.randn(n_hidden, n_in),
            "scale": torch.randn(n_in),
        }
        self.grads = {name: torch.zeros_like(p) for name, p in self.params.items()}

    def forward(self, x):
        p = self.params
        h = torch.tanh(x @ p["w1"] + p["b1"])
        o = h @ p["w2"]
        self.cache = x, h, o
        return x + p["scale"] * o

    def backward(self, grad):
        p = self.params
        x, h, o = self.cache
        self.grads["scale"] = (grad * o).sum(0)
        # ~ wrong-tensor|wrong-factor: self.grads["scale"] = (grad * x).sum(0)
        # ~ missing-broadcast-sum|wrong-shape: self.grads["scale"] = grad * o
        # ~ upstream-dropped: self.grads["scale"] = o.sum(0)
        # ~ stale-gradient|missing-gradient (scale):
        # = self.grads["scale"] = torch.einsum("nd,nd->d", grad, o)
        grad_o = grad * p["scale"]
        # ~ missing-factor: grad_o = grad
        # ~ inplace-corruption: grad_o = grad.mul_(p["scale"])
        self.grads["w2"] = h.T @ grad_o
        # ~ wrong-tensor|missing-factor: self.grads["w2"] = h.T @ grad
        # ~ stale-gradient: self.grads["w2"] += h.T @ grad_o
        # ~ transposed|wrong-shape: self.grads["w2"] = grad_o.T @ h
        grad_h = grad_o @ p["w2"].T
        grad_z = grad_h * (1 - h**2)
        # ~ missing-factor: grad_z = grad_h
        # ~ wrong-exponent|wrong-factor: grad_z = grad_h * (1 - h)
        # ~ double-applied|wrong-tensor: grad_z = grad_h * (1 - torch.tanh(h) ** 2)
        # ~ wrong-factor: grad_z = grad_h * h * (1 - h)
        # = grad_z = grad_h - grad_h * h.square()
        self.grads["w1"] = x.T @ grad_z
        # ~ stale-gradient: self.grads["w1"] = self.grads["w1"] + x.T @ grad_z
        # ~ wrong-tensor|missing-factor: self.grads["w1"] = x.T @ grad_h
        self.grads["b1"] = grad_z.sum(0)
        # ~ stale-gradient|missing-gradient (b1):
        # ~ stale-gradient: self.grads["b1"] += grad_z.sum(0)
        return grad + grad_z @ p["w1"].T
        # ~ lost-path: return grad_z @ p["w1"].T
        # ~ double-counted-path: return 2 * grad + grad_z @ p["w1"].T
        # ~ wrong-term-scale: return grad - grad_z @ p["w1"].T
        # ~ missing-factor|wrong-tensor: return grad + grad_h @ p["w1"].T


def used():
    torch.manual_seed(42)
    block = Block(5, 4)
    out = block.forward(torch.randn(3, 5))
    block.backward(torch.ones_like(out))
    return block
