"""Steps of engine "c" beside aten in float64: traced, compiled, and as near to the truth as single numbers go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from chainrule.compiling.c import CStep, compile_c

aten = torch.ops.aten
Call = tuple[Callable[..., Any], tuple[Tensor, ...]]


def graph_of(f: Callable[..., Any], args: list[Tensor]) -> fx.Graph:
    graph = make_fx(f, tracing_mode="fake")(*args).graph
    graph.eliminate_dead_code()
    return graph


def compiled(
    f: Callable[..., Any], args: list[Tensor], written: dict[int, int] | None = None, threads: int = 1
) -> CStep:
    """`f` gives a tuple; `written` says which of its results goes to which argument, the others are outputs."""
    graph = graph_of(f, args)
    results = next(n for n in graph.nodes if n.op == "output").args[0]
    places = [n for n in graph.nodes if n.op == "placeholder"]
    written = written or {}
    return compile_c(
        graph,
        [r for i, r in enumerate(results) if i not in written.values()],
        {places[place]: results[result] for place, result in written.items()},
        {p: f"x{i}" for i, p in enumerate(places)},
        threads=threads,
    )


def wide(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.dtype == torch.float32 else x


def assert_same(mine: Tensor, single: Tensor, true: Tensor, what: str) -> None:
    """`mine` is as near to the truth as `single`, what aten gives in float32, but for a few units in the last place."""
    assert mine.shape == true.shape, what
    if not true.dtype.is_floating_point:
        assert torch.equal(mine, true), what
        return
    assert torch.equal(mine.isnan(), true.isnan()), what
    finite = true.isfinite() & (true.abs() < 3e38)
    size = true[finite].abs().max().item() if finite.any() else 0.0
    bound = 2e-6 if mine.dtype == torch.float32 else 1e-12
    unit = torch.finfo(mine.dtype).eps + 4 * ((single - true)[finite].abs().max().item() if finite.any() else 0.0)
    assert ((mine[finite] - true[finite]).abs() <= bound * (true[finite].abs() + size) + unit).all(), what
    assert torch.equal(mine[true.isinf()].double(), true[true.isinf()].double()), what


def agree(f: Callable[..., Any], *args: Tensor) -> CStep:
    """The step gives what aten gives in float64, for these arguments."""
    return agree_each([(f, args)])


def agree_each(calls: Sequence[Call]) -> CStep:
    """The same for several calls, in one step: the compiler is started once."""

    def together(*given: Tensor) -> tuple[Tensor, ...]:
        left = iter(given)
        return tuple(chain.from_iterable(_results(f(*islice(left, len(args)))) for f, args in calls))

    given = [a for _, args in calls for a in args]
    step = compiled(together, given)
    wanted = chain.from_iterable(zip(_results(f(*args)), _results(f(*map(wide, args)))) for f, args in calls)
    for mine, (single, true) in zip(step(*given), wanted, strict=True):
        assert mine.dtype == single.dtype
        assert_same(mine, single, true, step.source)
    return step


def _results(found: Any) -> Iterable[Tensor]:
    return found if isinstance(found, tuple | list) else (found,)


def alone(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor]]:
    return lambda x: (f(x),)


def r(*shape: int) -> Tensor:
    return torch.randn(shape)


def p(*shape: int) -> Tensor:
    return torch.rand(shape) + 0.1


def i(high: int, *shape: int) -> Tensor:
    return torch.randint(0, high, shape)


def attention(causal: bool, scale: float | None = None, mask: bool = False) -> Callable[..., Any]:
    def f(g: Tensor, q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, ...]:
        how = {"attn_mask": m if mask else None, "scale": scale}
        y, logsumexp = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, **how)
        of = aten._scaled_dot_product_flash_attention_for_cpu_backward(g, q, k, v, y, logsumexp, 0.0, causal, **how)
        return (y, logsumexp, *of)

    return f
