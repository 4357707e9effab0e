"""The Jacobian of one value of a program with respect to another: every entry, with the names of its two elements."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import torch

from chainrule.errors import ChainruleError
from chainrule.pullback import depends, located, pullback
from chainrule.show import table

if TYPE_CHECKING:
    from chainrule.derivation import Derivation
    from chainrule.pictures.svg import Picture

LARGEST = 50_000_000  # entries; 0.2 GB in float32, a second or two
ROWS, COLUMNS = 12, 8  # of the printed table


class Jacobian:
    """d(`of`)/d(`wrt`). `.matrix` has a row for each element of `of` and a column for each element of `wrt`, in the
    order of `flatten()`; `.rows` and `.columns` are their names. `str()` is a table, a notebook shows a heat map."""

    def __init__(
        self, of: str, wrt: str, matrix: torch.Tensor, shapes: tuple[torch.Size, torch.Size], note: str
    ) -> None:
        self.of, self.wrt, self.matrix, self.note = of, wrt, matrix, note
        self.of_shape, self.wrt_shape = (tuple(shape) for shape in shapes)

    @property
    def shape(self) -> tuple[int, int]:
        """(numel of the value, numel of what it is derived by)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @cached_property
    def rows(self) -> list[str]:
        return _names(self.of, self.of_shape)

    @cached_property
    def columns(self) -> list[str]:
        return _names(self.wrt, self.wrt_shape)

    def row(self, position: int) -> str:
        """The name of one row, without making those of all."""
        return _name(self.of, self.of_shape, position)

    def column(self, position: int) -> str:
        return _name(self.wrt, self.wrt_shape, position)

    @property
    def title(self) -> str:
        shapes = f"{self.of} {self.of_shape} with respect to {self.wrt} {self.wrt_shape}"
        return f"the Jacobian of {shapes}: {self.shape[0]:,} x {self.shape[1]:,}"

    def __str__(self) -> str:
        across = table.elided(self.shape[1], COLUMNS)
        lines = [["", *(table.MORE if c is None else self.column(c) for c in across)]]
        for r in table.elided(self.shape[0], ROWS):
            if r is None:
                lines.append([table.MORE] * (len(across) + 1))
                continue
            cells = [table.MORE if c is None else table.number(float(self.matrix[r, c])) for c in across]
            lines.append([self.row(r), *cells])
        said = [self.title, table.text(lines, right=True), *([f"note: {self.note}"] if self.note else [])]
        return "\n".join(said)

    def __repr__(self) -> str:
        return f"<{self.title}>"

    def picture(self) -> Picture:
        """The heat map that a notebook shows."""
        from chainrule.pictures.heat import of_jacobian

        return of_jacobian(self)

    def _repr_svg_(self) -> str:
        return self.picture().svg

    def _repr_html_(self) -> str:
        return f"<div>{self.picture().svg}</div>"


def jacobian(d: Derivation, of: str, wrt: str) -> Jacobian:
    """d(of)/d(wrt), two named values of a derivation; see `Derivation.jacobian`."""
    value, variable = located(d, of, "a Jacobian"), located(d, wrt, "a Jacobian")
    shapes = (value.meta["val"].shape, variable.meta["val"].shape)
    _refuse_large(of, wrt, shapes, variable.meta["val"].dtype)
    note = ""
    if not depends(value, variable):
        if depends(variable, value):
            raise ChainruleError(
                f"{of} is computed before {wrt}, which depends on it; the Jacobian of {wrt} with respect to {of} is "
                f'jacobian("{wrt}", "{of}")',
                variable.meta.get("site"),
            )
        note = f"{of} does not depend on {wrt}, so every entry is 0"
    with pullback(d, value, variable) as pull:
        matrix = pull.rows()
    return Jacobian(of, wrt, matrix, shapes, note)


def _refuse_large(of: str, wrt: str, shapes: tuple[torch.Size, torch.Size], dtype: torch.dtype) -> None:
    rows, columns = shapes[0].numel(), shapes[1].numel()
    if rows * columns <= LARGEST:
        return
    size = rows * columns * dtype.itemsize / 1e9
    batch = math.floor(LARGEST / (rows * columns) * shapes[0][0]) if shapes[0] else 0
    advice = f"derive with a smaller batch, or name smaller values (up to {LARGEST:,} entries)"
    if batch and shapes[0][0] > 1:
        advice = f"derive with {of}.shape[0] of {batch} or fewer, or name smaller values (up to {LARGEST:,} entries)"
    raise ChainruleError(
        f"the Jacobian of {of} {tuple(shapes[0])} with respect to {wrt} {tuple(shapes[1])} has {rows:,} x {columns:,} "
        f"entries, {size:.3g} GB in {str(dtype).removeprefix('torch.')}; {advice}"
    )


def _name(name: str, shape: tuple[int, ...], position: int) -> str:
    index = torch.unravel_index(torch.tensor(position), shape) if shape else ()
    return table.entry(name, [int(i) for i in index])


def _names(name: str, shape: tuple[int, ...]) -> list[str]:
    return [table.entry(name, index) for index in product(*map(range, shape))]
