"""The figures as a picture: each work a group of bars, each family of contenders a colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chainrule.bench.contender import EAGER, OURS
from chainrule.bench.results import Block, Line
from chainrule.bench.table import header, size, time
from chainrule.bench.works import DEPTHS

COLOURS = {
    OURS: "#1f6feb",
    EAGER: "#57606a",
    "torch.compile": "#e36209",
    "JAX": "#2da44e",
    "HIPS autograd": "#a475f9",
    "thinc": "#d4a72c",
}
DEEPER: Sequence[tuple[str, Callable[[Line], float | None], Callable[[float], str]]] = (
    ("a step", lambda line: line.seconds, time),
    ("memory", lambda line: line.memory, lambda value: size(round(value))),
    ("first step", lambda line: line.first_step, time),
)


def steps(blocks: Sequence[Block], machine: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Time a step of each family's best, as a multiple of chainrule's best (of the fastest, where it has none)."""
    figure, axes = _figure(9, 1.2 + sum(0.24 * len(_families(b)) + 0.42 for b in blocks))
    at, ticks = 0.0, []
    for block in blocks:
        best = _families(block)
        if not best:
            continue
        unit = (block.ours or best[0]).seconds
        top = at - 0.5
        for line in best:
            ratio = line.seconds / unit
            axes.barh(at, ratio, left=0, height=0.82, color=COLOURS.get(line.family, "#8c959f"))
            said = f"{line.family}  {time(line.seconds)}" + (f"  ({ratio:.2f})" if line.seconds != unit else "")
            axes.annotate(said, (ratio, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)
            at += 1
        lowest = block.floor.seconds / unit
        axes.vlines(lowest, top, at - 0.5, color="#cf222e", linewidth=1.6)
        ticks.append(((top + at - 0.5) / 2, f"{block.name}\nfloor {time(block.floor.seconds)}"))
        at += 0.9
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_ylim(at - 0.4, -1.0)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.25)  # room for the words beside the longest bar
    axes.axvline(1, color="#1f6feb", linewidth=0.8, linestyle="--")
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    unit_of = "chainrule's best" if any(block.ours for block in blocks) else "the fastest"
    axes.set_xlabel(f"time a step, as a multiple of {unit_of} (logarithmic); the red line is the floor")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    _save(figure, "Time a step: forward, backward, update", machine, files)


def scaling(blocks: Sequence[Block], machine: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Time, memory and first step by the number of layers, a column for each, a row for each work."""
    rows = [[block for block in blocks if block.name == name] for name in dict.fromkeys(b.name for b in blocks)]
    figure, grid = _figure(12, 3.4 * len(rows) + 0.8, len(rows), len(DEEPER))
    for of_row, row in zip(grid, rows):
        for axes, (name, value, words) in zip(of_row, DEEPER):
            for family, colour in COLOURS.items():
                found = [(depth, block.fastest(family)) for depth, block in zip(DEPTHS, row)]
                values = [(depth, value(line)) for depth, line in found if line is not None]
                points = [(depth, y) for depth, y in values if y]
                if points:
                    axes.plot(*zip(*points), color=colour, marker=".", linewidth=1.6, label=family)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
            axes.yaxis.set_major_formatter(lambda y, _, words=words: words(y))
            axes.yaxis.set_minor_formatter(lambda y, _: "")
            axes.set_title(f"{row[0].name}: {name}", fontsize=9, loc="left")
            axes.set_xlabel("layers", fontsize=8)
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.25)
    grid[0][0].legend(frameon=False, fontsize=8)
    _save(figure, "By the number of layers", machine, files)


def _families(block: Block) -> list[Line]:
    """The best of each family, from the fastest to the slowest."""
    best = (block.fastest(family) for family in dict.fromkeys(line.family for line in block.lines))
    return sorted((line for line in best if line is not None), key=lambda line: line.seconds)


def _figure(width: float, height: float, *grid: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(*grid, squeeze=False) if grid else figure.subplots()


def _save(figure: Any, title: str, machine: Mapping[str, Any], files: Sequence[Path]) -> None:
    figure.suptitle(f"{title}\n", fontsize=11, x=0.01, ha="left")
    figure.text(0.01, 1.0, f"\n\n{header(machine).splitlines()[0]}", fontsize=7.5, va="top", color="#57606a")
    for file in files:
        figure.savefig(file)
