"""Engine "c": where its steps write, and how they share the work among threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from in_c import assert_same, aten, attention, compiled, graph_of, i, p, r, wide
from torch import Tensor

from chainrule.compiling.c import NoCompiler, NoSpelling, build, compile_c

Writing = tuple[Callable[[Tensor, Tensor], tuple[Tensor, ...]], dict[int, int]]
WRITING: list[Writing] = [  # which result goes into which argument
    (lambda x, y: (x + y, x * y), {0: 0, 1: 1}),
    (lambda x, y: (y * 1, x * 1), {0: 0, 1: 1}),
    (lambda x, y: (y, x), {0: 0, 1: 1}),
    (lambda x, y: (x.t(), x @ y), {0: 0, 1: 1}),
    (lambda x, y: (x @ y, x.sum(), x.t() * 2), {0: 0}),
    (lambda x, y: (x - 0.1 * (x.t() @ y), y - x.sum(0)), {0: 0, 1: 1}),
    (lambda x, y: (x.flip(0), y.sum(0, keepdim=True) + y), {0: 0, 1: 1}),
    (lambda x, y: (x * 2, x * 2, (x * 2).sum()), {0: 0, 1: 1}),
    (lambda x, y: (torch.cat([x[1:], y[:1]]), y.scatter_add(1, (x > 0).long(), x)), {0: 0, 1: 1}),
    (lambda x, y: (torch.softmax(x, 0), torch.softmax(x @ y, 1)), {0: 0, 1: 1}),
    (lambda x, y: (y, y + 1), {0: 0, 1: 1}),
]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "in order": torch.clone,
    "turned": lambda t: t.t().clone().t(),
    "with gaps": lambda t: torch.stack([t, t], 2)[:, :, 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_writes_in_place_see_old_values(layout: str) -> None:
    """Each pair of arguments has its own call; all are one step."""
    given = [(r(6, 6), r(6, 6)) for _ in WRITING]
    wanted = [f(x, y) for (f, _), (x, y) in zip(WRITING, given)]
    mine = [LAYOUTS[layout](t) for pair in given for t in pair]
    written, count = {}, 0
    for k, (_, places) in enumerate(WRITING):
        written.update({2 * k + place: count + result for place, result in places.items()})
        count += len(wanted[k])

    def together(*args: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for k, (f, _) in enumerate(WRITING) for value in f(*args[2 * k : 2 * k + 2]))

    step = compiled(together, mine, written)
    others, place_of = iter(step(*mine)), {result: place for place, result in written.items()}
    for at, value in enumerate(value for values in wanted for value in values):
        found = mine[place_of[at]] if at in place_of else next(others)
        torch.testing.assert_close(found, value, msg=step.source)


def test_steps_share_no_memory() -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (torch.softmax(x @ y, 1).t() @ x,)

    x, y = r(20, 30), r(30, 40)
    one, other = compiled(f, [x, y]), compiled(f, [x, y])
    assert one._library._name == other._library._name
    scratch = [torch.empty(step.arena, dtype=torch.uint8) for step in (one, other)]
    kept = one.bind({}, scratch[0])(x, y)[0].clone()
    other.bind({}, scratch[1])(2 * x, y)
    torch.testing.assert_close(one.bind({}, scratch[0])(x, y)[0], kept)
    (first,) = one(x, y)
    kept = first.clone()
    (second,) = one(x * 2, y)
    assert torch.equal(first, kept) and not torch.equal(first, second)


def test_bound_tensors_are_looked_up_once() -> None:
    x, w = r(4, 3), r(3, 2)
    graph = graph_of(lambda x, w: (x @ w, w * 2), [x, w])
    places = [n for n in graph.nodes if n.op == "placeholder"]
    results = next(n for n in graph.nodes if n.op == "output").args[0]
    step = compile_c(graph, [results[0]], {places[1]: results[1]})
    call, old = step.bind({places[1]: w}), w.clone()
    torch.testing.assert_close(call(x)[0], x @ old)
    torch.testing.assert_close(w, old * 2)
    torch.testing.assert_close(call(x)[0], x @ old * 2)


def test_indices_out_of_range_change_nothing() -> None:
    w = r(5, 3)
    step = compiled(lambda w, t: (w * 2, aten.embedding(w, t)), [w, i(5, 4)], {0: 0})
    before = w.clone()
    for bad in (5, -1):
        with pytest.raises(Exception, match=r"x1: an index is outside of 0 to 4"):
            step(w, torch.tensor([0, bad, 1, 2]))
        assert torch.equal(w, before)


PARALLEL: dict[str, Callable[[], tuple[Any, ...]]] = {
    "line": lambda: (lambda x: (x * 2, x.sum(), x.amin()), r(300_007)),
    "all": lambda: (lambda x: (x.sum(), x.mean(), (x > 3).any(), (x * 10).long().sum()), r(1031, 257)),
    "columns": lambda: (lambda x: (x.sum(0), x.amax(0), x.exp().mean(0)), r(1031, 257)),
    "columns_of_stacks": lambda: (lambda x: (x.sum((0, 1)), x.sum((0, 2))), r(5, 207, 257)),
    "rows_and_columns": lambda: (lambda x: (x - x.sum(1, keepdim=True), (x - x.sum(1, keepdim=True)).sum(0)), r(1031, 257)),
    "product_and_columns": lambda: (lambda x, w: (torch.relu(x @ w), torch.relu(x @ w).sum(0), x.sum(0)), r(1031, 64), r(64, 100)),
    "few_rows": lambda: (lambda x: (x.sum(0), x.sum()), r(2, 200_003)),
    "layer_norm_backward": lambda: (
        lambda g, x, m, s, w: aten.native_layer_norm_backward(g, x, [257], m, s, w, w, [True] * 3),
        r(1031, 257), r(1031, 257), r(1031, 1), p(1031, 1), r(257)),
    "attention": lambda: (attention(True), r(3, 2, 130, 33), *(r(3, 2, 130, 33) for _ in range(3)), r(1)),
    "embedding_backward": lambda: (
        lambda g, t: (aten.embedding_dense_backward(g, t, 300, -1, False), g.sum(0), g.sum((0, 1))), r(5, 207, 257), i(300, 5, 207)),
}  # fmt: skip


@pytest.mark.parametrize("name", PARALLEL)
@pytest.mark.parametrize("threads", [2, 3])
def test_sums_in_parts(name: str, threads: int) -> None:
    f, *args = PARALLEL[name]()
    step = compiled(lambda *x: tuple(y) if isinstance(y := f(*x), tuple | list) else (y,), args, threads=threads)
    assert "parallel" in step.source
    mine = step(*args)
    for given, single, true in zip(mine, f(*args), f(*map(wide, args)), strict=True):
        assert_same(given, single, true, step.source)
    for first, again in zip(mine, step(*args), strict=True):
        assert torch.equal(first, again)


def test_threads_change_nothing() -> None:
    def f(x: Tensor, w: Tensor, s: Tensor) -> tuple[Tensor, ...]:
        y = torch.relu(x @ w)
        return w - 0.1 * (x.t() @ y), y.sum(0), torch.bmm(s, s.transpose(1, 2)).softmax(-1), (x.exp() * 2).sum()

    given = [r(500, 300), r(300, 60), r(20, 70, 90)]
    alone, together = [a.clone() for a in given], [a.clone() for a in given]
    one, two = compiled(f, alone, {1: 0}), compiled(f, together, {1: 0}, threads=2)
    assert "omp parallel" in two.source and "omp parallel" not in one.source
    for a, b in zip([*one(*alone), alone[1]], [*two(*together), together[1]], strict=True):
        torch.testing.assert_close(a, b)
    assert one.large_products == () and compiled(f, [r(500, 900), r(900, 60), given[2]]).large_products != ()


# -- refusals ----------------------------------------------------------------------------------------


def test_what_has_no_spelling_is_said() -> None:
    with pytest.raises(NoSpelling, match=r"aten.cumsum.*another engine"):
        compiled(lambda x: (x.cumsum(0),), [r(3)])
    with pytest.raises(NoSpelling, match=r"no C type for torch.complex64"):
        compiled(lambda x: (x * 2,), [r(3).to(torch.complex64)])


def test_a_compiler_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    build.compiler.cache_clear()
    try:
        with pytest.raises(NoCompiler, match="no C compiler 'no-such-compiler' is found"):
            compiled(lambda x: (x * 2.5,), [r(3)])
    finally:
        build.compiler.cache_clear()
