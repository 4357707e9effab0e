"""`chainrule bench`: the training steps, with a bar while they are measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.cli import Refused

if TYPE_CHECKING:
    from chainrule.bench.contender import Recipe
    from chainrule.bench.results import Block

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "NPROC")  # NPROC: XLA's


def run(
    only: tuple[str, ...],
    contenders: str | None,
    rounds: int,
    threads: int | None,
    scaling: bool,
    save: Path | None,
    as_json: bool,
) -> bool:
    """Measure, print and save; whether no contender was wrong."""
    count = threads or _cores()
    for pool in POOLS:
        os.environ.setdefault(pool, str(count))  # read when the libraries are first imported
    from chainrule.bench import machine, measure, scaling as depths, works
    from chainrule.bench.table import LEGEND, header
    from chainrule.cli.answers import console, print_json

    recipes = _recipes(contenders)
    chosen = _works(only)
    if save is not None:
        _folder(save)
    with machine.threads(count):
        described = machine.machine()
        results: dict[str, Any] = {"machine": described, "rounds": rounds}
        with _bar(as_json) as (show, beat):
            if not as_json:
                show(header(described), LEGEND)
            measure.load(works.WORKS[0], recipes)
            blocks: list[Block] = []
            for work in chosen:
                blocks.append(measure.measure(work, recipes, rounds, beat=beat(work.name)))
    return True


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
