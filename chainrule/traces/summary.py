"""A tensor in few words: small ones as they are, large ones by range, mean, zeros and corners."""

from __future__ import annotations

import torch

from chainrule.show import table

WHOLE = 48  # elements; more are summarised
CORNER = 4  # rows and columns of the block that a single step shows of a large tensor


def summary(value: torch.Tensor, whole: int = WHOLE) -> str:
    """A small tensor as it is; a large one by range, mean, share of zeros, and its first and last entry.

    >>> summary(torch.tensor([1., 2.]))
    '[1, 2]'
    >>> summary(torch.arange(100.))
    '0 .. 99, mean 49.5, 1% zeros; [0] = 0, [99] = 99'
    """
    if value.numel() <= whole and value.ndim <= 2:
        return small(value)
    if not value.numel():
        return "no elements"
    last = [n - 1 for n in value.shape]
    flat = value.detach().flatten()
    corners = f"{[0 for _ in last]} = {number(flat[0])}, {last} = {number(flat[-1])}"
    return f"{in_words(value)}; {corners}"


def in_words(value: torch.Tensor) -> str:
    """Range, mean, share of zeros, and how many elements are NaN or infinite."""
    if value.dtype == torch.bool:
        return f"{float(value.double().mean()):.0%} True"
    real = value.double() if not value.dtype.is_complex else value.abs().double()
    finite = real[torch.isfinite(real)]
    text = "no finite element"
    if finite.numel():
        text = f"{float(finite.min()):.4g} .. {float(finite.max()):.4g}, mean {float(finite.mean()):.4g}"
        text = f"sizes {text}" if value.dtype.is_complex else text
    zeros, nans = int((real == 0).sum()), int(torch.isnan(real).sum())
    infinite = value.numel() - finite.numel() - nans
    text += f", {_share(zeros, value.numel())} zeros" if zeros else ""
    text += f", {nans:,} NaN" if nans else ""
    return text + (f", {infinite:,} infinite" if infinite else "")


def block(value: torch.Tensor) -> str:
    """The corners of a large tensor: its first and last rows and columns; of more dimensions, of its first matrix.

    >>> print(block(torch.arange(100.).view(10, 10)))
    [ 0  1 …  8  9]
    [10 11 … 18 19]
    [ …  … …  …  …]
    [80 81 … 88 89]
    [90 91 … 98 99]
    """
    value = value.detach()
    while value.ndim > 2:
        value = value[0]
    rows = value.view(1, -1) if value.ndim < 2 else value
    across, down = table.elided(rows.shape[1], CORNER), table.elided(rows.shape[0], CORNER)
    cells = [[table.MORE if r is None or c is None else number(rows[r, c]) for c in across] for r in down]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(f"[{' '.join(c.rjust(w) for c, w in zip(row, widths, strict=True))}]" for row in cells)


def small(value: torch.Tensor) -> str:
    """All elements of a tensor of at most two dimensions: a number, a list, or a line for each row."""
    if value.ndim == 0:
        return number(value, 6)
    if value.ndim == 1:
        return f"[{', '.join(number(v) for v in value)}]"
    cells = [[number(v) for v in row] for row in value]
    width = max((len(cell) for row in cells for cell in row), default=0)
    return "\n".join(f"[{' '.join(cell.rjust(width) for cell in row)}]" for row in cells) or "[]"


def number(element: torch.Tensor, digits: int = 4) -> str:
    found = element.item()
    return str(found) if isinstance(found, bool) else table.number(found, digits)


def _share(count: int, of: int) -> str:
    """
    >>> _share(1, 3), _share(1, 10_000), _share(9_999, 10_000)
    ('33%', '<1%', '>99%')
    """
    if 0 < count < 0.005 * of:
        return "<1%"
    return ">99%" if of > count > 0.995 * of else f"{count / of:.0%}"
