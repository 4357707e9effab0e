"""Picking elements, by numbers, slices, masks and tensors of indices."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.registry import normal, truths, whole, zoo


@zoo(lambda n: (normal(n, 3),))
def index_with_ints(x: Tensor) -> Tensor:
    return x[0, 1] * x[-1, 2] + x[0].sum() * x[:, 0].prod()


@zoo(lambda n: (normal(n, 6),))
def index_with_slices(x: Tensor) -> Tensor:
    return (x[:, 1:4] * x[:, ::2]).sum() + x[:, -2:].pow(2).sum() + x[:1].sum()


@zoo(lambda n: (normal(n, 3, 4),))
def index_with_ellipsis(x: Tensor) -> Tensor:
    return x[..., 0] * x[:, 1, 2:3] + x[..., 1:2].squeeze(-1)


@zoo(lambda n: (normal(n, 3), normal(4, 3)))
def index_with_none(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None, :] * b[None]).sum(-1).sigmoid()


@zoo(lambda n: (normal(n, 3), truths(n, 3)))
def index_with_a_mask(x: Tensor, keep: Tensor) -> Tensor:
    return x[keep].pow(3).sum() + x[x > 0].sum() + x.masked_select(keep).exp().sum()


@zoo(lambda n: (normal(4, 3), whole(4, n)))
def rows_picked_repeatedly(table: Tensor, rows: Tensor) -> Tensor:
    return table[rows].tanh().sum() + (table[[0, 0, 1]] * table[1:]).sum()


@zoo(lambda n: (normal(n, 4), whole(4, n)))
def one_element_of_each_row(x: Tensor, y: Tensor) -> Tensor:
    return x[torch.arange(x.shape[0]), y].exp().mean() + x[torch.arange(len(y)), y].sum()


@zoo(lambda n: (normal(n, 4), whole(4, n)), batches=())
def one_element_of_each_row_by_range(x: Tensor, y: Tensor) -> Tensor:
    return x[range(x.shape[0]), y].exp().mean()


@zoo(lambda n: (normal(n, 4), whole(4, 6)))
def columns_picked(x: Tensor, at: Tensor) -> Tensor:
    return x[:, at] * torch.index_select(x, 1, at)


@zoo(lambda n: (normal(n, 4), whole(4, n, 2)))
def gathered(x: Tensor, at: Tensor) -> Tensor:
    return x.gather(1, at).pow(2).sum() + torch.take_along_dim(x, at, dim=1).exp().sum()


@zoo(lambda n: (normal(4, 3), normal(n, 3), whole(4, n)))
def scattered(base: Tensor, updates: Tensor, rows: Tensor) -> Tensor:
    summed = base.index_add(0, rows, updates)
    spread = torch.zeros_like(base).scatter_add(0, rows[:, None].expand(-1, 3), updates)
    return (summed * spread).sum() + summed.tanh().sum()


@zoo(lambda n: (whole(6, n, 2), normal(6, 3)), smooth=False)
def bag_of_embeddings(tokens: Tensor, table: Tensor) -> Tensor:
    return F.embedding(tokens, table, padding_idx=0).mean(1).pow(2).sum()


@zoo(lambda n: (normal(n, 4), truths(n, 4)))
def masked_fill_and_softmax(scores: Tensor, hide: Tensor) -> Tensor:
    hide = hide & (torch.arange(4) > 0)
    return scores.masked_fill(hide, -1e9).softmax(-1)


@zoo(lambda n: (normal(n, 5),))
def second_largest(x: Tensor) -> Tensor:
    at = x.argsort(dim=1)[:, -2:]
    return x.gather(1, at).prod(1).sum()


@zoo(lambda n: (normal(n, 5),))
def finite_differences_of_a_signal(signal: Tensor) -> Tensor:
    step = signal[:, 1:] - signal[:, :-1]
    bend = step[:, 1:] - step[:, :-1]
    return (step**2).mean() + (bend**2).mean()


@zoo(lambda n: (normal(n, 1, 3),))
def first_of_one(x: Tensor) -> Tensor:
    return x[:, 0].sin() + x[:, 0, :] * x[:, :, 1]


@zoo(lambda n: (normal(n, 4),))
def all_but_the_diagonal(x: Tensor) -> Tensor:
    gram = x.T @ x
    off = ~torch.eye(4, dtype=torch.bool)
    return gram[off].pow(2).mean()


@zoo(lambda n: (normal(n, 4), whole(4, n)))
def one_hot_by_hand(logits: Tensor, y: Tensor) -> Tensor:
    hot = torch.zeros_like(logits)
    hot[torch.arange(logits.shape[0]), y] = 1.0
    return ((logits.softmax(1) - hot) ** 2).sum()


@zoo(lambda n: (normal(n, 3), normal(n)))
def column_written(x: Tensor, c: Tensor) -> Tensor:
    h = x * 2
    h[:, 0] = c
    return (h * h.sin()).sum()
