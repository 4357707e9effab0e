"""The memory of compiled steps: what is predicted is what is measured, budgets are met, and nothing is overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.profiler import ProfilerActivity, profile

import chainrule as cr
from chainrule.compiling.memory import Arena, Interval, arranged, most_alive, owner
from chainrule.compiling.slicing.loop import in_slices
from chainrule.compiling.straight.schedule import freeing

needs_c = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def peak(call: Callable[[], Any]) -> int:
    """The most bytes that a call allocates at one time."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        call()
    now = most = 0
    events = [e for e in measured.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def perceptron() -> tuple[Any, Any]:
    model = nn.Sequential(
        nn.Linear(64, 256), nn.GELU(), nn.LayerNorm(256), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 8)
    )
    return lambda x, y: F.cross_entropy(model(x), y), (torch.randn(2000, 64), torch.randint(0, 8, (2000,)))


def elementwise() -> tuple[Any, Any]:
    w = torch.randn(600, requires_grad=True)
    return lambda x: ((x * w).exp().sin() * (x + w).sigmoid() / (1 + x * x)).square().mean(), (torch.randn(900, 600),)


def convolution() -> tuple[Any, Any]:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3)
    )
    return lambda x: model(x).square().mean(), (torch.randn(64, 3, 24, 24),)


def wide() -> tuple[Any, Any]:
    first, second = torch.randn(700, 900, requires_grad=True), torch.randn(900, 700, requires_grad=True)
    return lambda x: (torch.relu(x @ first) @ second - x).square().mean(), (torch.randn(600, 700),)


def masked() -> tuple[Any, Any]:
    model = nn.Sequential(nn.Linear(64, 256), nn.Dropout(0.3), nn.Tanh(), nn.Linear(256, 64))
    return lambda x: model(x).square().mean(), (torch.randn(2000, 64),)


def tied() -> tuple[Any, Any]:
    """The gradient of the table comes in columns, and a sum of exponentials is a kernel that copies."""
    table = nn.Embedding(2000, 64)
    return lambda i: (table(i).tanh() @ table.weight.T).logsumexp(-1).mean(), (torch.randint(0, 2000, (400,)),)


PROGRAMS = [perceptron, elementwise, convolution, wide, masked, tied]


@pytest.mark.parametrize("recompute", ["auto", "none", "all"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_what_is_predicted_is_measured(program: Callable[[], Any], recompute: str) -> None:
    forward, batch = program()
    step = cr.compile(forward, *batch, optimizer=cr.SGD(lr=0.01), recompute=recompute)
    plan = step.plan()
    measured = peak(lambda: step(*batch)) + plan.buffers_bytes
    assert plan.peak_bytes > 1e6
    assert plan.buffers_bytes >= sum(t.nbytes for t in plan.drawn.values())
    assert abs(measured - plan.peak_bytes) <= 0.1 * measured, (plan.peak_bytes, measured)


@pytest.mark.parametrize("engine", ["torch", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("program", [perceptron, masked, tied], ids=lambda p: p.__name__)
def test_what_is_predicted_is_measured_in_slices(program: Callable[[], Any], engine: str) -> None:
    """With gradients that are clipped, and a parameter that moves by a kernel."""
    forward, batch = program()
    step = cr.compile(forward, *batch, optimizer=cr.AdamW(lr=0.01, clip_norm=1.0))
    whole = step.plan()
    plan = in_slices(engine, whole.lowered, 4, step.optimizer, moments_of(step))
    assert plan.buffers_bytes >= sum(t.nbytes for t in plan.drawn.values())
    measured = peak(lambda: plan.call(*batch)) + plan.buffers_bytes
    assert abs(measured - plan.peak_bytes) <= 0.1 * measured, (plan.peak_bytes, measured)


def moments_of(step: Any) -> dict[fx.Node, list[Tensor]]:
    return step._planner._moments(step.plan().lowered, step.optimizer)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_budgets(program: Callable[[], Any]) -> None:
    """As much memory as is given, and the same numbers for each."""
    torch.manual_seed(0)
    forward, batch = program()
    free = cr.compile(forward, *batch, recompute="none")
    most = free.plan().peak_bytes / 1e6
    with pytest.raises(cr.ChainruleError, match=r"needs at least [\d.]+ MB") as refused:
        cr.compile(forward, *batch, memory=0.01)
    least = float(str(refused.value).split("at least ")[1].split(" MB")[0]) + 0.1
    torch.manual_seed(1)
    loss, found = free(*batch)
    for budget in (least, (least + most) / 2, most + 0.1):
        step = cr.compile(forward, *batch, memory=budget)
        assert step.plan().peak_bytes <= budget * 1e6
        torch.manual_seed(1)
        again, gradients = step(*batch)
        torch.testing.assert_close(again, loss)
        torch.testing.assert_close(gradients, found, rtol=1e-3, atol=1e-5)


def test_values_that_are_computed_again_are_named() -> None:
    forward, batch = elementwise()
    assert cr.compile(forward, *batch, recompute="none").plan().recomputed == []
    plan = cr.compile(forward, *batch, recompute="all").plan()
    assert plan.recomputed
    assert f"computed again in the backward pass: {plan.recomputed[0]}" in str(plan)


# -- properties ----------------------------------------------------------------------------------------


@st.composite
def intervals(draw: st.DrawFn) -> list[Interval]:
    graph, found = fx.Graph(), []
    for k in range(draw(st.integers(0, 25))):
        first = draw(st.integers(0, 20))
        found.append(
            Interval(graph.placeholder(f"v{k}"), 64 * draw(st.integers(0, 9)), first, first + draw(st.integers(0, 8)))
        )
    return found


@settings(max_examples=200, deadline=None)
@given(intervals())
def test_values_alive_at_one_time_lie_apart(values: list[Interval]) -> None:
    arena: Arena = arranged(values)
    for i, a in enumerate(values):
        start = arena.offsets[a.node]
        assert 0 <= start <= start + a.size <= arena.size
        for b in values[:i]:
            if a.first <= b.last and b.first <= a.last and a.size and b.size:
                other = arena.offsets[b.node]
                assert start + a.size <= other or other + b.size <= start
    most = max((sum(v.size for v in values if v.first <= line <= v.last) for line in range(30)), default=0)
    assert most_alive(values) == most <= arena.size <= sum(v.size for v in values)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_freeing_keeps_what_reads_what(data: st.DataObject) -> None:
    graph = fx.Graph()
    nodes = [graph.placeholder("x")]
    nodes[0].meta["val"] = torch.empty(4, 4)
    made = []
    for _ in range(data.draw(st.integers(1, 20))):
        kind = data.draw(st.sampled_from(["add", "mm", "view", "long"]))
        pick = [data.draw(st.sampled_from(nodes)) for _ in range(2)]
        values = [n.meta["val"] for n in pick]
        if kind == "view":
            node = graph.call_function(torch.ops.aten.t.default, (pick[0],))
            node.meta["val"] = values[0].t()
        elif kind == "long":
            node = graph.call_function(torch.ops.aten.sum.dim_IntList, (pick[0], [0], True))
            node.meta["val"] = values[0].sum(0, True)
        elif values[0].shape == values[1].shape and (kind == "add" or values[0].shape == (4, 4)):
            target = torch.ops.aten.add.Tensor if kind == "add" else torch.ops.aten.mm.default
            node = graph.call_function(target, tuple(pick))
            node.meta["val"] = torch.empty(values[0].shape)
        else:
            continue
        nodes.append(node)
        made.append(node)
    start = data.draw(st.integers(0, len(made)))
    order = made[:start] + freeing(made, start)
    assert sorted(order, key=made.index) == made
    place = {node: i for i, node in enumerate(order)}
    for node in order:
        assert all(read.op == "placeholder" or place[read] < place[node] for read in node.all_input_nodes)
        assert owner(node).op == "placeholder" or place[owner(node)] <= place[node]


def test_values_share_memory() -> None:
    """The arena of a deep network is smaller than its values together."""
    w = torch.randn(16, 16, dtype=torch.float64, requires_grad=True)

    def forward(x: Tensor) -> Tensor:
        for _ in range(20):
            x = (x @ w).tanh() * 0.5
        return x.square().mean()

    step = cr.compile(forward, torch.randn(8, 16, dtype=torch.float64))
    buffers = [b for b in step.plan().memory.buffers if b.offset is not None]
    assert step.plan().memory.arena < 0.8 * sum(b.size for b in buffers)
    for i, a in enumerate(buffers):
        for b in buffers[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
