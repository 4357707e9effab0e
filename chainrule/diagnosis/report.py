"""What `check` says: a row for each gradient, a finding for each mistake."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """One gradient, compared with the truth."""

    name: str
    status: str  # "right", "close", "wrong", "missing" or "wrong shape"
    max_abs: float | None
    max_rel: float | None
    shape: tuple[int, ...] | None
    expected_shape: tuple[int, ...]
    line: int | None
    file: str | None = None


@dataclass(frozen=True)
class Edit:
    """A change to a person's file: lines `first` to `last`, counted from 1, become `lines`.

    Where `last` is `first - 1`, the new lines are put in before line `first`.
    """

    file: str
    first: int
    last: int
    lines: tuple[str, ...]

    @property
    def inserts(self) -> bool:
        """Whether the lines are put in, and none is replaced."""
        return self.last < self.first

    @property
    def line(self) -> int:
        """Where it is made; the line above, where lines are put in."""
        return self.last if self.inserts else self.first

    def applied(self, source: list[str]) -> list[str]:
        """The lines of the file with the change made.

        >>> Edit("f.py", 2, 2, ("    w.g = x",)).applied(["def step(x):", "    w.g = 2 * x"])
        ['def step(x):', '    w.g = x']
        """
        return [*source[: self.first - 1], *self.lines, *source[self.last :]]

    def diff(self, source: list[str], shown: str | None = None) -> str:
        """The change as a unified diff; `shown` is the name of the file in it."""
        name = shown or Path(self.file).name
        changed = difflib.unified_diff(source, self.applied(source), f"a/{name}", f"b/{name}", n=2, lineterm="")
        return "\n".join(changed)


@dataclass
class Finding:
    """One mistake: a gradient that is wrong given the gradients that it was computed from."""

    name: str
    line: int | None
    cause: str  # one of chainrule.diagnosis.causes.CAUSES
    message: str
    repair: str  # the line as it should be, in the person's names
    proved: bool = False  # the repaired code was run, and this gradient is right in it
    file: str | None = None
    text: str = ""  # the person's line as it stands
    also: tuple[str, ...] = ()  # causes that explain the numbers equally well on these inputs
    edit: Edit | None = None  # the repair as a change to the person's file

    def __str__(self) -> str:
        return self.at(Path(self.file).name if self.file and self.line else "")

    def at(self, file: str) -> str:
        """`file:line: cause message`, the form that terminals and editors make a link of.

        >>> Finding("w", 7, "sign", "w.g (3,) is wrong", "w.g = x").at("net.py")
        'net.py:7: sign w.g (3,) is wrong'
        """
        place = f"{file}:{self.line}: " if file and self.line else f"{file}: " if file else ""
        return f"{place}{self.cause} {self.message}"

    def change(self) -> list[str]:
        """The person's line with `-` before it, the repair with `+`; other causes that fit as well. Where there is no
        repair the line stands by itself.

        >>> Finding("w", 7, "sign", "", "w.g = x", proved=True, text="w.g = -x").change()
        ['- w.g = -x', '+ w.g = x   # proved']
        """
        deleted = self.edit is not None and not self.edit.lines
        repair = ["delete this line"] if deleted else [f"+ {line}" for line in self.repair.splitlines()]
        lines = [f"- {line}" if repair else f"  {line}" for line in self.text.splitlines()]
        if repair and self.proved:
            repair[-1] += "   # proved"
        also = [f"also possible: {', '.join(self.also)}"] if self.also else []
        return [*lines, *repair, *also]


@dataclass(repr=False)
class Report:
    """The result of `check`; truthy when every gradient is right."""

    rows: list[Row]
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(row.status in ("right", "close") for row in self.rows) and not self.findings

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"Report({'; '.join([self._count(), *map(str, self.findings)])})"

    def __str__(self) -> str:
        lines = [self.table()]
        for finding in self.findings:
            lines += ["", str(finding), *(f"  {line}" for line in finding.change())]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from chainrule.diagnosis.display import html

        return html(self)

    def table(self) -> str:
        """A line for each gradient, and how many are right."""
        body = [row_cells(row) for row in self.rows]
        widths = [max(len(row[i]) for row in [HEAD, *body]) for i in range(len(HEAD))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [HEAD, *body]
        ]
        return "\n".join([*lines, self._count()])

    def findings_first(self) -> str:
        """The findings with paths that can be clicked, then the table: what a failing test shows."""
        parts = ["\n".join([f.at(clickable(f.file)), *(f"  {c}" for c in f.change())]) for f in self.findings]
        return "\n\n".join([*parts, "\n".join([self.table(), *(f"note: {note}" for note in self.notes)])])

    def _count(self) -> str:
        right = sum(r.status in ("right", "close") for r in self.rows)
        return f"{right} of {len(self.rows)} gradients are right" if self.rows else "no gradient was found"


HEAD = ["gradient", "status", "shape", "largest error", "relative", "line"]


def row_cells(row: Row) -> list[str]:
    """The row as text, a cell for each column of HEAD."""
    return [
        f"{row.name}.g" if "." not in row.name or row.shape is None else row.name,
        row.status,
        "" if row.shape is None else str(row.shape),
        "" if row.max_abs is None else f"{row.max_abs:.2g}",
        "" if row.max_rel is None or _is_of_nothing(row) else f"{row.max_rel:.2g}",
        "" if row.line is None else str(row.line),
    ]


def _is_of_nothing(row: Row) -> bool:
    """Whether the gradient is 0 but for rounding, to which nothing is relative: of a bias before a norm."""
    small = row.max_abs is not None and row.max_abs < 1e-6
    return row.status in ("right", "close") and small and (row.max_rel or 0.0) > 0.1


def clickable(file: str | None) -> str:
    """The path from the current folder where the file lies below it, else the whole path."""
    if not file or not os.path.isabs(file):
        return file or ""
    below = Path(file).is_relative_to(Path.cwd())
    return os.path.relpath(file) if below else file
