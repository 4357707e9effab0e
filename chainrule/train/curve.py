"""The loss curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chainrule.train.loop import Step


def draw(steps: Sequence[Step], file: Path, title: str) -> None:
    """Training loss and held-out accuracy against steps, one above the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    numbers, losses = [s.number for s in steps], [s.loss for s in steps]
    above.plot(numbers, losses, color="tab:blue", alpha=0.3, linewidth=0.8, label="each mini-batch")
    above.plot(numbers, smoothed(losses), color="tab:blue", linewidth=2, label="running mean")
    above.set_yscale("log")
    above.set_ylabel("training loss (cross-entropy)")
    above.legend(loc="upper right", frameon=False)
    measured = [(s.number, 100 * s.accuracy) for s in steps if s.accuracy is not None]
    below.plot([n for n, _ in measured], [a for _, a in measured], color="tab:green", linewidth=2, marker=".")
    last = measured[-1]
    below.annotate(f"{last[1]:.1f} %", last, xytext=(-4, -16), textcoords="offset points", ha="right")
    below.axhline(95, color="grey", linewidth=0.8, linestyle="--")
    below.set_ylabel("held-out accuracy (%)")
    below.set_xlabel("step (one mini-batch each)")
    for axes in (above, below):
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    figure.savefig(file)


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """The exponential running mean, corrected for its start.

    >>> smoothed([2.0, 2.0, 2.0])
    [2.0, 2.0, 2.0]
    """
    mean, total, found = 0.0, 0.0, []
    for value in values:
        mean, total = weight * mean + (1 - weight) * value, weight * total + (1 - weight)
        found.append(mean / total)
    return found
