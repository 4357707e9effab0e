"""One work, all contenders: made ready, compared with autograd, timed in turn, and asked for their memory."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from chainrule.bench import floor, neighbours, rounds
from chainrule.bench.agreement import STEPS, TOLERANCE, Truth, truth
from chainrule.bench.contender import Contender, Recipe, Unable, fresh
from chainrule.bench.results import SKIPPED, WRONG, Block, Line
from chainrule.bench.works import Setup, Work

ROUNDS = 11
Beat = Callable[[str], object]


def measure(
    work: Work,
    recipes: Sequence[Recipe],
    samples: int = ROUNDS,
    least: float = rounds.LEAST,
    beat: Beat = lambda doing: None,
) -> Block:
    """Every recipe on one work; `beat` is told what is being done. A contender that is wrong is not timed."""
    forget()
    setup = fresh(work)
    batch = setup.batch
    beat("the floor")
    lowest = floor.of(setup, samples, least / 10)
    right = truth(work, setup)
    lines, ready = [], {}
    for recipe in recipes:
        beat(recipe.name)
        with _nothing_compiled():
            line, contender = _made(recipe, work, fresh(work, batch), right)
        lines.append(line)
        if contender is not None:
            ready[line.name] = contender
    before = neighbours.used()
    taken = rounds.in_turn(ready, samples, least, lambda: beat("rounds"))
    others = neighbours.by_others(before)
    lowest = floor.lower(lowest, floor.of(fresh(work, batch), samples, least / 10))  # a machine is not always as fast
    for line in lines:
        if line.name in ready:
            line.samples, line.memory = taken[line.name], ready[line.name].memory()
    return Block(work.name, work.title, work.matrix_bound, lowest, lines, others)


def load(work: Work, recipes: Sequence[Recipe]) -> None:
    """One step of each on a work that is not measured, so that no first step waits for an import."""
    setup = fresh(work)
    right = truth(work, fresh(work))
    for recipe in recipes:
        _made(recipe, work, fresh(work, setup.batch), right)


def _made(recipe: Recipe, work: Work, setup: Setup, right: Truth) -> tuple[Line, Contender | None]:
    """The contender after `STEPS` steps, where it is able and right."""
    line = Line(recipe.name, recipe.family)
    if recipe.family in work.lacks:
        line.status, line.reason = SKIPPED, work.lacks[recipe.family]
        return line, None
    try:
        start = time.perf_counter()
        contender = recipe.make(work, setup)
        losses = [contender.step().item()]
        line.first_step = time.perf_counter() - start
        losses += [contender.step().item() for _ in range(STEPS - 1)]
        contender.wait()
        line.apart, where = right.apart(losses, contender.parameters())
    except Unable as reason:
        line.status, line.reason = SKIPPED, str(reason)
    except Exception as error:  # of a library: a compiler that is missing, an operation it cannot do
        line.status = WRONG if recipe.ours else SKIPPED
        line.reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    else:
        if line.apart <= TOLERANCE:
            return line, contender
        line.status, line.reason = WRONG, f"{where} is off by {line.apart:.1e} of itself"
    return line, None


def forget() -> None:
    """What torch.compile remembers of earlier works would slow it down."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    gc.collect()


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """The compiler of torch.compile, where it is loaded, finds no code of earlier runs."""
    if "torch._inductor.utils" not in sys.modules:
        yield
        return
    from torch._inductor.utils import fresh_cache

    with fresh_cache():
        yield
