"""`chainrule bench`: the training steps beside their peers and their floor; on a terminal with a word on what runs."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.cli import Refused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from chainrule.bench.contender import Recipe
    from chainrule.bench.results import Block

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")  # NPROC is XLA's
WIDTH = 110  # of the tables
Beat = Callable[[str], object]


def run(
    only: Sequence[str],
    contenders: str | None,
    rounds: int | None,
    threads: int | None,
    scaling: bool,
    save: Path | None,
    as_json: bool,
) -> bool:
    """Measure, print and save; whether no contender was wrong."""
    with _pools(threads or _cores()) as count:
        from chainrule.bench.machine import machine
        from chainrule.bench.machine import threads as computing
        from chainrule.bench.measure import ROUNDS, load
        from chainrule.bench.results import WRONG
        from chainrule.bench.table import LEGEND, header
        from chainrule.bench.works import DEPTHS, WORKS
        from chainrule.cli.answers import print_json

        works = _works(only, DEPTHS[:1] if scaling else ())
        recipes = _recipes(contenders)
        _folder(save)
        with computing(count), _told() as beat:
            page = Page(quiet=as_json)
            described = machine()
            page.print(f"{header(described)}\n{LEGEND}")
            beat("loading the libraries")
            load(WORKS[0], recipes)
            rounds = rounds or ROUNDS
            measured = _deeper if scaling else _each
            blocks = measured(page, works, recipes, rounds, beat)
        answer = {"machine": described, "rounds": rounds, "works": [block.as_json() for block in blocks]}
        if as_json:
            print_json(answer)
        if save is not None:
            name = "scaling" if scaling else "steps"
            _draw(scaling, blocks, described, [save / f"{name}.svg", save / f"{name}.png"])
            (save / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
            (save / f"{name}.txt").write_text(page.text(), encoding="utf-8")
            page.print(f"\nwritten to {save}: {name}.json, {name}.txt, {name}.svg, {name}.png")
    return not any(line.status == WRONG for block in blocks for line in block.lines)


def _each(page: Page, works: Sequence[str], recipes: Sequence[Recipe], rounds: int, beat: Beat) -> list[Block]:
    """Work after work; a table as soon as one is measured."""
    from chainrule.bench.measure import measure
    from chainrule.bench.table import left_out, table
    from chainrule.bench.works import WORKS

    blocks = []
    for work in WORKS:
        if work.name in works:
            block = measure(work, recipes, rounds, beat=_about(work.name, beat))
            page.print("", table(block), *left_out(block))
            blocks.append(block)
    return blocks


def _deeper(page: Page, works: Sequence[str], recipes: Sequence[Recipe], rounds: int, beat: Beat) -> list[Block]:
    """The works that grow, from the flattest to the deepest; tables at the end."""
    from chainrule.bench.measure import measure
    from chainrule.bench.table import by_depth, left_out
    from chainrule.bench.works import DEPTHS, deeper

    blocks = []
    for depth in DEPTHS:
        for work in deeper(depth):
            if work.name in works:
                blocks.append(measure(work, recipes, rounds, beat=_about(work.title, beat)))
    for name in works:
        grown = [block for block in blocks if block.name == name]
        for shown in by_depth(grown):
            page.print("", shown)
        for block in grown:
            page.print(*(f"{block.title}: {line}" for line in left_out(block)))
    return blocks


def _about(work: str, beat: Beat) -> Beat:
    return lambda doing: beat(f"{work}: {doing}")


def _draw(scaling: bool, blocks: Sequence[Block], machine: dict[str, Any], files: Sequence[Path]) -> None:
    from chainrule.bench import chart

    (chart.scaling if scaling else chart.steps)(blocks, machine, files)


class Page:
    """What is printed, and the same as plain text."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console

        from chainrule.cli.answers import console

        self._plain = Console(file=io.StringIO(), width=WIDTH, highlight=False)
        screen = console()
        screen.width = max(screen.width, WIDTH)
        self._consoles = [self._plain] if quiet else [screen, self._plain]

    def print(self, *shown: RenderableType) -> None:
        for console in self._consoles:
            for each in shown:
                console.print(each)

    def text(self) -> str:
        assert isinstance(self._plain.file, io.StringIO)
        return "".join(f"{line.rstrip()}\n" for line in self._plain.file.getvalue().splitlines())


def _works(only: Sequence[str], depths: Sequence[int]) -> list[str]:
    from chainrule.bench.works import WORKS, deeper

    names = [work.name for depth in depths for work in deeper(depth)] or [work.name for work in WORKS]
    for name in only:
        if name not in names:
            raise Refused(f"no work is called {name}; choose from {', '.join(names)}")
    return [name for name in names if not only or name in only]


def _recipes(wanted: str | None) -> list[Recipe]:
    """The contenders whose name or family is among `wanted`; all where nothing is."""
    from chainrule.bench.ours import COMPILED
    from chainrule.bench.peers import PEERS

    recipes = [*COMPILED, *PEERS]
    if wanted is None:
        return recipes
    chosen = []
    for word in wanted.split(","):
        found = [r for r in recipes if word.strip().casefold() in (r.name.casefold(), r.family.casefold())]
        if not found:
            names = dict.fromkeys(name for r in recipes for name in (r.family, r.name))
            raise Refused(f"no contender is called {word.strip()}; choose from {', '.join(names)}")
        chosen += [r for r in found if r not in chosen]
    return chosen


def _folder(save: Path | None) -> None:
    """Asked for before the work starts, as is what draws the picture."""
    if save is None:
        return
    try:
        import matplotlib  # noqa: F401

        save.mkdir(parents=True, exist_ok=True)
    except ModuleNotFoundError as error:
        raise Refused('--save draws with matplotlib; run pip install "chainrule[demo]"') from error
    except OSError as error:
        raise Refused(f"cannot make the folder {save}: {error.strerror}") from error


@contextmanager
def _pools(count: int) -> Iterator[int]:
    """The libraries that are first imported within make pools of `count` threads."""
    before = {name: os.environ.get(name) for name in POOLS}
    os.environ.update(dict.fromkeys(POOLS, str(count)))
    try:
        yield count
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _told() -> Iterator[Beat]:
    """What is being measured, on the last line of a terminal."""
    from rich.console import Console

    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield lambda doing: None
        return

    def tell(doing: str) -> None:
        screen.print(f"\r\x1b[K{doing}", end="", highlight=False, markup=False)

    try:
        yield tell
    finally:
        tell("")


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
