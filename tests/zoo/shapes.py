"""Shapes: products of matrices, einsum, joining, cutting, turning."""

import torch
from torch import Tensor

from zoo.registry import normal, zoo


@zoo(lambda n: (normal(n), normal(4)))
def outer_product(a: Tensor, b: Tensor) -> Tensor:
    return torch.outer(a, b).sin() + a[:, None] * b[None]


@zoo(lambda n: (normal(n, 3), normal(3, 4), normal(4)))
def einsum_bilinear(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bi,ij,j->b", x, w, v).pow(2).sum()


@zoo(lambda n: (normal(n, 3, 2), normal(n, 4, 2)))
def einsum_batched(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("bid,bjd->bij", q, k).softmax(-1)


@zoo(lambda n: (normal(n, 3), normal(3, 3)))
def quadratic_form(x: Tensor, A: Tensor) -> Tensor:
    return ((x @ A) * x).sum(1) + torch.einsum("ni,ij,nj->n", x, A, x)


@zoo(lambda n: (normal(n, 3), normal(3), normal(n)))
def vectors_and_matrices(M: Tensor, v: Tensor, u: Tensor) -> Tensor:
    return u @ M @ v + (M @ v).dot(u) + (M.mv(v) * u).sum()


@zoo(lambda n: (normal(n, 2, 3), normal(n, 3, 2), normal(3, 4)))
def batched_products(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.bmm(a, b).sum(0).sum() + (a @ c).tanh().sum() + torch.baddbmm(a @ b, a, b).pow(2).sum()


@zoo(lambda n: (normal(n, 3), normal(3, 2), normal(2)))
def addmm_and_friends(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.addmm(b, x, w).tanh() + torch.mm(x, w)


@zoo(lambda n: (normal(n, 2), normal(n, 3), normal(n, 2)))
def cat_and_stack(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    joined = torch.cat([a, b, a], dim=1)
    piled = torch.stack((a, c), 0)
    return joined.pow(2).sum() + (piled[0] * piled[1].exp()).sum()


@zoo(lambda n: (normal(n, 6),))
def chunk_split_narrow(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    c, d = torch.split(x, [2, 4], dim=1)
    return (a * b).sum() + (c.exp().sum(1) * d.sum(1)).sum() + x.narrow(1, 1, 3).pow(3).sum()


@zoo(lambda n: (normal(n, 6),))
def only_one_chunk_is_used(x: Tensor) -> Tensor:
    _, middle, _ = x.chunk(3, 1)
    return middle.sin().sum()


@zoo(lambda n: (normal(n, 3), normal(3)))
def repeat_and_expand(x: Tensor, v: Tensor) -> Tensor:
    tiled = v.repeat(x.shape[0], 1)
    wide = v.expand(x.shape[0], -1)
    return (x * tiled).sum() + (x - wide).pow(2).sum() + (v.expand_as(x) * x).tanh().sum()


@zoo(lambda n: (normal(n, 2, 3), normal(2, 3)))
def transposes_chained(x: Tensor, w: Tensor) -> Tensor:
    y = x.transpose(1, 2).transpose(0, 1).permute(2, 1, 0)
    return (y.mT @ y).tanh().sum() + (w.T.t() * w.transpose(0, 1).T).sum() + (y * w.unsqueeze(1)).sum()


@zoo(lambda n: (normal(n, 6), normal(6)))
def reshapes(x: Tensor, w: Tensor) -> Tensor:
    grid = (x * w).view(-1, 2, 3)
    flat = grid.permute(0, 2, 1).reshape(x.shape[0], -1)
    return (flat * x.flatten(1).reshape(-1, 6)).sum() + grid.flatten().pow(2).mean()


@zoo(lambda n: (normal(n, 3),))
def squeeze_and_unsqueeze(x: Tensor) -> Tensor:
    y = x.unsqueeze(1).unsqueeze(-1)
    z = y.squeeze(-1).squeeze(1)
    return (z * x[:, None, :].squeeze(1)).tanh()


@zoo(lambda n: (normal(n, 4),))
def flip_and_roll(x: Tensor) -> Tensor:
    return x * x.flip(1) + x.roll(1, 0) * torch.roll(x, shifts=(1, 2), dims=(0, 1)) + x.flip(0, 1)


@zoo(lambda n: (normal(n, 3, 4),))
def unbind_and_movedim(x: Tensor) -> Tensor:
    a, b, c = x.unbind(1)
    return (a * b - c).sum() + (x.movedim(1, 2) * x.movedim(1, -1).exp()).sum()


@zoo(lambda n: (normal(n, 4, 4),))
def triangles(x: Tensor) -> Tensor:
    return x.tril() @ x.triu(1) + x.diagonal(dim1=1, dim2=2).unsqueeze(-1)


@zoo(lambda n: (normal(n, 3),))
def a_view_of_a_view(x: Tensor) -> Tensor:
    rows = x.T
    return (rows.contiguous() * rows.clone()).T.reshape(-1).pow(2).sum()


@zoo(lambda n: (normal(n, 2, 2, 3),))
def patches(image: Tensor) -> Tensor:
    b, h, w, c = image.shape
    tokens = image.reshape(b, h * w, c)
    mean = tokens.mean(1, keepdim=True).expand(-1, h * w, -1)
    return torch.cat((tokens, mean), dim=2).flatten(1).pow(2).sum(1)


@zoo(lambda n: (normal(n, 3),))
def float_and_back(x: Tensor) -> Tensor:
    return (x.double() * x.to(torch.float64).type_as(x)).sum()


@zoo(lambda n: (normal(n, 3, 4, 2), normal(2, 5)))
def matmul_rank_four(x: Tensor, w: Tensor) -> Tensor:
    return (x @ w).sum(2).tanh() + (x.mT @ x).sum((1, 2, 3))[:, None, None]
