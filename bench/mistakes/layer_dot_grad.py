"""A convolution over time as a layer that leaves its gradients in `.grad`, as torch does."""

import torch

CHECK = "Conv1d(kernel, bias)"

torch.manual_seed(44)
kernel, bias = torch.randn(4, 3, 2), torch.randn(4)


def inputs():
    torch.manual_seed(45)
    return (torch.randn(2, 3, 6),)


class Conv1d:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.shape = x.shape
        self.windows = x.unfold(2, self.w.shape[2], 1)  # (n, c, positions, k)
        return torch.einsum("nctk,fck->nft", self.windows, self.w) + self.b[:, None]

    def backward(self, g):
        self.w.grad = torch.einsum("nctk,nft->fck", self.windows, g)
        # ~ missing-gradient (w):
        # ~ wrong-scale: self.w.grad = torch.einsum("nctk,nft->fck", self.windows, g) / len(g)
        # ~ upstream-dropped: self.w.grad = self.windows.sum((0, 2)).expand_as(self.w).clone()
        # ~ transposed|wrong-axis: self.w.grad = torch.einsum("nctk,nft->fck", self.windows.flip(3), g)
        # ~ wrong-axis|missing-broadcast-sum: self.w.grad = torch.einsum("ctk,ft->fck", self.windows[0], g[0])
        # = self.w.grad = (g.transpose(0, 1).flatten(1) @ self.windows.transpose(1, 2).flatten(0, 1).flatten(1)).view_as(self.w)
        self.b.grad = g.sum((0, 2))
        # ~ missing-broadcast-sum|wrong-axis|wrong-shape: self.b.grad = g[0].sum(1)
        # ~ wrong-scale|wrong-axis: self.b.grad = g.mean((0, 2))
        # ~ missing-gradient (b): self.b.grad = None
        # = self.b.grad = g.sum(2).sum(0)
        dx = torch.zeros(self.shape, dtype=g.dtype)
        for k in range(self.w.shape[2]):
            part = torch.einsum("nft,fc->nct", g, self.w[:, :, k])
            # ~ wrong-tensor|transposed: part = torch.einsum("nft,fc->nct", g, self.w[:, :, -1 - k])
            # ~ wrong-tensor|wrong-axis: part = torch.einsum("nft,fc->nct", g, self.w[:, :, 0])
            # = part = self.w[:, :, k].T @ g
            dx[:, :, k : k + g.shape[2]] += part
            # ~ overwritten-not-accumulated: dx[:, :, k : k + g.shape[2]] = part
            # ~ sign: dx[:, :, k : k + g.shape[2]] -= part
            # ~ double-counted-path|wrong-scale: dx[:, :, k : k + g.shape[2]] += 2 * part
        return dx
