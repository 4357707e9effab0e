"""`check`: repairs where sizes are bound to one another, so that no axis can be made longer alone, and where lists count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from of_source import of_source

import chainrule as cr

CONTEXT = """\
import torch


def step(tokens, targets, table, w, b):
    n, context = tokens.shape
    rows = table[tokens]
    flat = rows.view(n, -1)
    h = torch.tanh(flat @ w + b)
    loss = ((h - targets) ** 2).sum() / n
    h.g = 2 * (h - targets) / tokens.numel()
    pre_g = h.g * (1 - h * h)
    w.g = flat.T @ pre_g
    b.g = pre_g.sum(0)
    return loss
"""
SQUARE = """\
import torch


def step(tokens, targets, table, w):
    n = len(tokens)
    rows = table[tokens]
    flat = rows.view(n, -1)
    p = (flat @ w).softmax(1)
    loss = -p[range(n), targets].log().mean()
    dlogits = p.clone()
    dlogits[range(n), targets] -= 1
    dlogits = dlogits / n
    dw = flat.T @ dlogits
    dflat = dlogits @ w.T
    drows = dflat.view(rows.shape[0], rows.shape[2], rows.shape[1]).transpose(1, 2)
    dtable = torch.zeros_like(table)
    dtable.index_put_((tokens,), drows, accumulate=True)
    return loss, dtable, dw
"""
LAYERS = """\
import numpy as np


class Bag:
    def __init__(self, tables):
        self.tables = tables
        self.dtables = [np.zeros_like(t) for t in tables]

    def forward(self, places):
        self.places = places
        h = 0
        for k, table in enumerate(self.tables):
            h = h + table[places[:, k]]
        return h * (1 / len(self.tables))

    def backward(self, dout):
        da = dout * len(self.tables)
        for k in range(len(self.tables)):
            self.dtables[k][...] = 0
            np.add.at(self.dtables[k], self.places[:, k], da)
"""


@pytest.mark.parametrize("context", [2, 3])
def test_a_size_is_no_bare_number(context: int) -> None:
    def batch(n: int, context: int, width: int) -> tuple[torch.Tensor, ...]:
        tokens = torch.randint(0, 5, (n, context))
        shapes = (n, 4), (5, width), (context * width, 4), (4,)
        return tokens, *(torch.randn(shape, dtype=torch.float64) for shape in shapes)

    (finding,) = cr.check(of_source(CONTEXT)["step"], *batch(7, context, 6)).findings
    assert finding.proved
    assert finding.cause == "wrong-scale"
    assert cr.check(of_source("\n".join(finding.edit.applied(CONTEXT.splitlines())))["step"], *batch(6, 5, 3)).ok


def test_sizes_that_are_alike_by_chance_are_told_apart() -> None:
    def batch(n: int, context: int, width: int) -> tuple[torch.Tensor, ...]:
        tokens, targets = torch.randint(0, 5, (n, context)), torch.randint(0, 4, (n,))
        shapes = (5, width), (context * width, 4)
        return tokens, targets, *(torch.randn(shape, dtype=torch.float64) for shape in shapes)

    tokens, targets, table, w = batch(9, 3, 3)
    findings = cr.check(of_source(SQUARE)["step"], tokens, targets, table, w).findings
    named = cr.check(of_source(SQUARE)["step"], tokens, targets, table=table, w=w).findings
    assert [f.repair for f in named] == [f.repair for f in findings]
    (finding,) = findings
    assert finding.proved and finding.edit is not None
    assert cr.check(of_source("\n".join(finding.edit.applied(SQUARE.splitlines())))["step"], *batch(7, 2, 4)).ok


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("wrong", ["dout * len(self.tables)", "dout * (1 / len(self.tables)) ** 2", "dout"])
def test_how_many_a_list_holds_is_no_bare_number(count: int, wrong: str) -> None:
    def check(source: str, count: int) -> Any:
        numbers = np.random.default_rng(0)
        layer = of_source(source)["Bag"]([numbers.standard_normal((5, 3)) for _ in range(count)])
        return cr.check(layer, numbers.integers(0, 5, (6, count)))

    right = LAYERS.replace("dout * len(self.tables)", "dout * (1 / len(self.tables))")
    assert check(right, count).ok
    source = LAYERS.replace("dout * len(self.tables)", wrong)
    (finding,) = check(source, count).findings
    assert finding.proved
    assert "len(self.tables)" in finding.repair
    assert check("\n".join(finding.edit.applied(source.splitlines())), 7 - count).ok
