"""The clock by which searches end: counted operations, and time where that is far longer."""

from __future__ import annotations

import time

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

import chainrule as cr
from chainrule.run import run
from chainrule.work import work


def test_operations_count_and_not_how_long_they_take() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    nodes = [graph.call_function(torch.neg, (x,)) for _ in range(2000)]
    before = work()
    run(nodes, {x: torch.ones(3)})
    counted = work.counted
    assert 2000 / 3e4 <= counted < 2100 / 3e4
    assert work() - before >= counted


def test_elements_count() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    work()
    run([graph.call_function(torch.neg, (x,))], {x: torch.ones(1_000_000)})
    assert work.counted > 2e-3


def test_sizes_that_a_trace_does_not_know_stay_out_of_it() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    nodes = [found := graph.call_function(torch.nonzero, (x,)), graph.call_function(torch.neg, (found,))]
    make_fx(lambda given: run(nodes, {x: given})[nodes[-1]], tracing_mode="fake")(torch.ones(3))
    assert isinstance(work.counted, float)


def test_sizes_that_a_recording_follows_stay_out_of_it() -> None:
    graph = fx.Graph()
    node = graph.placeholder("x")
    opposite = graph.call_function(torch.neg, (node,))
    work()
    cr.derive(lambda x: run([opposite], {node: x})[opposite].sum(), torch.ones(3, 2))
    assert type(work.counted) is float
    assert type(work()) is float


def test_what_is_not_counted_counts_by_its_time() -> None:
    before, began = work(), time.thread_time()
    while time.thread_time() - began < 0.05:
        pass
    assert 0.05 / 6 - 1e-9 <= work() - before < 0.05
