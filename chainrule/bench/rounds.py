"""The protocol of timing: in turn, warm, in samples long enough for the clock; the median counts."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

LEAST = 20e-3  # seconds; a sample lasts at least as long
PAUSE = 50e-3  # seconds before each sample: until the threads of the one before have stopped waiting for work


class Timed(Protocol):
    """What can be timed: `step` may leave work under way, `wait` returns when it is done."""

    def step(self) -> object: ...
    def wait(self) -> None: ...


@dataclass(frozen=True)
class Call:
    """A function that is done when it returns."""

    step: Callable[[], object]

    def wait(self) -> None:
        return None


def seconds(timed: Timed, repetitions: int = 1) -> float:
    """The time of one step, as the mean of `repetitions` without a pause."""
    step = timed.step
    start = time.perf_counter()
    for _ in range(repetitions):
        step()
    timed.wait()
    return (time.perf_counter() - start) / repetitions


def in_turn(
    contenders: Mapping[str, Timed],
    rounds: int,
    least: float = LEAST,
    beat: Callable[[], object] = lambda: None,
    pause: float = PAUSE,
) -> dict[str, list[float]]:
    """Samples of each contender's time a step: once a round, after a pause in which the threads of the one before go to
    sleep (OpenMP's spin for a while, on the processors that another library's threads want), and after steps that warm
    what the others cooled.

    `beat` is called after each round.

    >>> samples = in_turn({"sum": Call(lambda: sum(range(100)))}, rounds=3)
    >>> len(samples["sum"])
    3
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    with quiet() as collect:
        repetitions = {name: _repetitions(timed, least) for name, timed in contenders.items()}
        for _ in range(rounds):
            for name, timed in contenders.items():
                collect()
                time.sleep(pause)
                seconds(timed, max(1, repetitions[name] // 4))
                samples[name].append(seconds(timed, repetitions[name]))
            beat()
    return samples


def _repetitions(timed: Timed, least: float) -> int:
    """How many steps make a sample of at least `least` seconds."""
    count = 1
    while True:
        taken = count * seconds(timed, count)
        if taken >= least:
            return count
        count = max(2 * count, math.ceil(count * least / taken))


@contextmanager
def quiet() -> Iterator[Callable[[], object]]:
    """Python's collector runs when it is called, on what was made within, and never meanwhile."""
    if not gc.isenabled():  # it is quiet already
        yield gc.collect
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.enable()
        gc.unfreeze()
