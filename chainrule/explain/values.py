"""What is said of a value: a few numbers about it, and its first and last entries."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ROWS, COLUMNS = 6, 6  # of the entries that are shown
MORE = "…"


@dataclass(frozen=True)
class Summary:
    """A value in a few numbers, ready to be set in a row."""

    shape: str
    dtype: str
    range: str  # "0.02 to 3.1"; "" of no numbers
    mean: str
    zeros: str  # "48%"; "" where none is zero
    missing: str  # "2 NaN, 1 infinite"; "" where all are finite

    def __str__(self) -> str:
        facts = [self.range, f"mean {self.mean}" if self.mean else "", f"{self.zeros} zeros" if self.zeros else ""]
        return ", ".join(filter(None, [*facts, self.missing]))


def summary(value: torch.Tensor) -> Summary:
    """
    >>> print(summary(torch.tensor([[0.0, 1.0], [2.0, float("nan")]])))
    0 to 2, mean 1, 25% zeros, 1 NaN
    """
    shape, dtype = str(tuple(value.shape)), str(value.dtype).removeprefix("torch.")
    real = value.abs() if value.is_complex() else value
    known = real[torch.isfinite(real)].double()
    low, high, mean = (number(f(known).item()) if known.numel() else "" for f in (torch.min, torch.max, torch.mean))
    nans = int(torch.isnan(real).sum())
    infinite = value.numel() - known.numel() - nans
    missing = ", ".join([f"{nans:,} NaN"] * (nans > 0) + [f"{infinite:,} infinite"] * (infinite > 0))
    spread = low if low == high else f"{low} to {high}"
    spread = f"sizes {spread}" if value.is_complex() and spread else spread
    mean = "" if value.numel() == 1 or low == high else mean
    return Summary(shape, dtype, spread, mean, _share(int((value == 0).sum()), value.numel()), missing)


def _share(count: int, of: int) -> str:
    """
    >>> _share(0, 9), _share(1, 4), _share(1, 10_000), _share(9_999, 10_000)
    ('', '25%', '<1%', '>99%')
    """
    if not count or of == 1:
        return ""
    percent = f"{count / of:.0%}"
    return "<1%" if percent == "0%" else ">99%" if percent == "100%" and count < of else percent


def number(value: complex | float) -> str:
    """
    >>> number(0.123456), number(-2.0), number(1e-12), number(True)
    ('0.1235', '−2', '1e−12', 'True')
    """
    if isinstance(value, bool | complex):
        return str(value) if isinstance(value, bool) else f"{value:.3g}"
    return f"{value + 0.0:.4g}".replace("-", "−").replace("e−0", "e−").replace("e+0", "e+")


def entries(value: torch.Tensor) -> list[list[str]]:
    """The entries of a value, the middle of a large one left out; of several matrices, the first.

    >>> entries(torch.arange(8.0))
    [['0', '1', '2', '…', '6', '7']]
    """
    shown = value.detach()
    while shown.ndim > 2:
        shown = shown[0] if shown.shape[0] else shown.new_empty(0, 0)
    shown = shown.reshape(1, -1) if shown.ndim < 2 else shown
    down, across = _kept(shown.shape[0], ROWS), _kept(shown.shape[1], COLUMNS)
    return [
        [MORE if i is None or j is None else number(shown[i, j].item()) for j in across] for i in down if shown.numel()
    ]


def _kept(count: int, most: int) -> list[int | None]:
    if count <= most:
        return list(range(count))
    head = most // 2
    return [*range(head), None, *range(count - (most - head - 1), count)]


def first_of(value: torch.Tensor) -> str:
    """Which part of a value `entries` shows, "" where it is all of it."""
    if value.ndim > 2 and any(n != 1 for n in value.shape[:-2]):
        return f"[{', '.join(['0'] * (value.ndim - 2))}]"
    return ""
