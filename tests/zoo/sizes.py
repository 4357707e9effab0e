"""Sizes as numbers: read in every way that people read them, and calculated with."""

import math

import torch
from torch import Tensor

from zoo.registry import normal, zoo


@zoo(lambda n: (normal(n, 4),))
def divided_by_len(x: Tensor) -> Tensor:
    n = len(x)
    return x.pow(2).sum() / n


@zoo(lambda n: (normal(n, 4),))
def divided_by_the_product_of_the_shape(x: Tensor) -> Tensor:
    return x.exp().sum() / math.prod(x.shape) + x.sin().sum() / x.shape.numel()


@zoo(lambda n: (normal(n, 4),))
def area_as_a_product_of_two_sizes(x: Tensor) -> Tensor:
    return x.pow(3).sum() / (x.shape[0] * x.shape[1]) + x.sum() * (1 / x.size(0))


@zoo(lambda n: (normal(n, 6),))
def half_of_the_columns(x: Tensor) -> Tensor:
    return (x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :]).mean()


@zoo(lambda n: (normal(n, 4),), pattern="the rounded half of the batch is a plain number")
def half_of_the_batch(x: Tensor) -> Tensor:
    return x[: round(x.shape[0] / 2)].pow(2).sum()


@zoo(lambda n: (normal(n, 4),), pattern="the loop runs over the batch")
def row_by_row(x: Tensor) -> Tensor:
    total = torch.zeros((), dtype=x.dtype)
    for i in range(len(x)):
        total = total + x[i].sin().sum()
    return total


@zoo(lambda n: (normal(n, 4), normal(4, 2)), pattern="the square root of the batch size is a plain number")
def scaled_by_the_root_of_the_batch(x: Tensor, w: Tensor) -> Tensor:
    return (x @ w / math.sqrt(x.shape[0])).tanh().sum()


@zoo(lambda n: (normal(n, 4),), pattern="which way it goes depends on the batch size")
def another_way_for_large_batches(x: Tensor) -> Tensor:
    if x.shape[0] > 4:
        return x.pow(2).mean()
    return x.exp().mean()


@zoo(lambda n: (normal(n, 4),))
def reshaped_by_its_own_sizes(x: Tensor) -> Tensor:
    n, m = x.shape
    return x.reshape(m, n).reshape(*x.shape).reshape(n * m).cos().sum()
