"""The figures as rich tables, and the units that they are printed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from chainrule.bench.contender import OURS
from chainrule.bench.neighbours import NOTICED
from chainrule.bench.results import MEASURED, WRONG, Block, Line

COLUMNS = ("a step", "x eager", "x peer", "of floor", "memory", "first step")
LEGEND = """\
a step      the median of the rounds
x eager     how many times as fast as the fastest spelling of eager
x peer      how many times as fast as the fastest that is not chainrule's
of floor    how many times the floor: the products of the step alone, or its bytes, whichever takes longer
memory      what a step holds at its peak, beyond parameters and batch; "-" where that is not measured
first step  with all that is compiled before it"""


def header(machine: Mapping[str, Any]) -> str:
    """The machine in two lines."""
    named = ("processor", "instructions", "cores", "threads", "system", "date")
    versions = ", ".join(f"{name} {version}" for name, version in machine.items() if name not in named)
    where = f"{machine['processor']} ({machine['instructions']}), {machine['cores']} cores, {machine['threads']} in use"
    return f"{where}, {machine['system']}, {machine['date']}\n{versions}"


def table(block: Block) -> Table:
    """One work: what was measured, from the fastest to the slowest, and then what was not."""
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left", title_style="bold")
    shown.title = f"{block.name}: {block.title}"
    shown.add_column("", no_wrap=True)
    for column in COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    for line in sorted(block.measured, key=lambda line: line.seconds):
        shown.add_row(line.name, *_cells(block, line), style="bold" if line.family == OURS else "")
    shown.add_row("floor", time(block.floor.seconds), style="dim")
    return shown


def left_out(block: Block) -> Iterator[Text]:
    """A line for each contender that was not measured, with the reason; and one where the machine was not quiet."""
    if (block.others or 0.0) > NOTICED:
        yield Text(
            f"other programs took {block.others:.0%} of the processors meanwhile: measure again when they rest",
            style="bold red",
        )
    for line in block.lines:
        if line.status != MEASURED:
            style = "bold red" if line.status == WRONG else "dim"
            yield Text(f"{line.name}: {line.status}, {line.reason}", style=style)


def by_depth(blocks: Sequence[Block]) -> Iterator[Table]:
    """One work at growing depths: a table of times, one of memory, one of first steps; a column for each depth."""
    what: tuple[tuple[str, Callable[[Line], str]], ...] = (
        ("a step", lambda line: time(line.seconds)),
        ("memory", lambda line: size(line.memory)),
        ("first step", lambda line: time(line.first_step or 0.0)),
    )
    for title, cell in what:
        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left", title_style="bold")
        shown.title = f"{blocks[0].name}, {title}"
        shown.add_column("", no_wrap=True)
        for block in blocks:
            shown.add_column(block.title.split(", ")[1], justify="right", no_wrap=True)
        for i, first in enumerate(blocks[0].lines):
            lines = [block.lines[i] for block in blocks]
            if any(line.status == MEASURED for line in lines):
                shown.add_row(first.name, *(cell(line) if line.status == MEASURED else line.status for line in lines))
        yield shown


def _cells(block: Block, line: Line) -> list[str]:
    eager, peer = block.eager, block.peer
    first = "" if line.first_step is None else time(line.first_step)
    return [
        time(line.seconds),
        f"{eager.seconds / line.seconds:.2f}" if eager else "",
        f"{peer.seconds / line.seconds:.2f}" if peer else "",
        f"{line.seconds / block.floor.seconds:.2f}",
        size(line.memory),
        first,
    ]


def time(seconds: float) -> str:
    """Three digits of a time.

    >>> time(0.0000123), time(0.00456), time(1.234)
    ('12.3 us', '4.56 ms', '1.23 s')
    """
    for unit, length in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= length:
            return f"{_three(seconds / length)} {unit}"
    return f"{_three(seconds * 1e6)} us"


def size(bytes_: int | None) -> str:
    """Three digits of a size, in steps of a thousand.

    >>> size(848), size(171_848), size(None)
    ('848 B', '172 kB', '-')
    """
    if bytes_ is None:
        return "-"
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= length:
            return f"{_three(bytes_ / length)} {unit}"
    return f"{bytes_} B"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
