"""What `check` says: a row for each gradient, a finding for each mistake."""

from __future__ import annotations

import difflib
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
        place = f"{Path(self.file).name}:{self.line}: " if self.file and self.line else ""
        return f"{place}{self.cause} {self.message}"


@dataclass
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

    def __str__(self) -> str:
        head = ["gradient", "status", "shape", "largest error", "relative", "line"]
        body = [
            [
                f"{r.name}.g" if "." not in r.name or r.shape is None else r.name,
                r.status,
                "" if r.shape is None else str(r.shape),
                "" if r.max_abs is None else f"{r.max_abs:.2g}",
                "" if r.max_rel is None else f"{r.max_rel:.2g}",
                "" if r.line is None else str(r.line),
            ]
            for r in self.rows
        ]
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *body]
        ]
        right = sum(r.status in ("right", "close") for r in self.rows)
        lines.append(f"{right} of {len(self.rows)} gradients are right" if self.rows else "no gradient was found")
        for finding in self.findings:
            lines += ["", str(finding)]
            if finding.text:
                lines.append(f"  - {finding.text}")
            if finding.repair:
                lines.append(f"  + {finding.repair}{'   # proved' if finding.proved else ''}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
