"""The proved repairs of a check, put together into one change for each file."""

from __future__ import annotations

import difflib
import importlib.util
import io
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chainrule.cli import Refused
from chainrule.diagnosis.report import Edit, Finding, clickable


@dataclass
class Change:
    """A person's file before and after its repairs."""

    path: Path
    before: bytes
    after: bytes
    findings: list[Finding]
    skipped: list[tuple[Finding, Finding]] = field(default_factory=list)  # each with the one whose lines it shares

    def diff(self) -> str:
        name = Path(clickable(str(self.path))).as_posix().lstrip("/")
        old, new = ([line.rstrip("\r\n") for line in _read(text)[0]] for text in (self.before, self.after))
        return "\n".join(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", lineterm=""))

    def write(self) -> None:
        """Raises Refused where the file cannot be written, or was changed since it was read."""
        try:
            if self.path.read_bytes() != self.before:
                raise Refused(f"{clickable(str(self.path))} was changed meanwhile; run the check again")
            self.path.write_bytes(self.after)
            # Python tells a stale cache by size and whole seconds, which a quick repair may leave as they were
            Path(importlib.util.cache_from_source(str(self.path))).unlink(missing_ok=True)
        except OSError as error:
            raise Refused(f"cannot write {clickable(str(self.path))}: {error.strerror}") from error


def changes(reports: Iterable[Any]) -> list[Change]:
    """One change for each file that a proved finding repairs; of repairs that share lines, the first is taken."""
    files: dict[Path, list[tuple[Finding, Edit]]] = {}
    for finding in (f for report in reports for f in report.findings):
        edit = finding.edit
        if not finding.proved or edit is None or not Path(edit.file).is_file():
            continue
        edits = files.setdefault(Path(edit.file).resolve(), [])
        if all(other != edit for _, other in edits):  # two targets may run the same line
            edits.append((finding, edit))
    return [_change(path, edits) for path, edits in files.items()]


def _change(path: Path, edits: list[tuple[Finding, Edit]]) -> Change:
    before = path.read_bytes()
    lines, encoding = _read(before)
    taken: list[tuple[Finding, Edit]] = []
    skipped: list[tuple[Finding, Finding]] = []
    for finding, edit in edits:
        in_the_way = next((other for other, kept in taken if overlap(edit, kept)), None)
        if in_the_way is None:
            taken.append((finding, edit))
        else:
            skipped.append((finding, in_the_way))
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    unfinished = bool(lines) and not lines[-1].endswith(("\n", "\r"))
    if unfinished:
        lines[-1] += ending
    for edit in from_the_bottom([edit for _, edit in taken]):
        lines = replace(edit, lines=tuple(line + ending for line in edit.lines)).applied(lines)
    text = "".join(lines)
    after = (text.removesuffix(ending) if unfinished else text).encode(encoding)
    return Change(path, before, after, [finding for finding, _ in taken], skipped)


def overlap(one: Edit, other: Edit) -> bool:
    """Whether two edits change the same line, or one puts lines into the middle of what the other changes.

    >>> overlap(Edit("f.py", 2, 4, ()), Edit("f.py", 4, 4, ("x",)))
    True
    >>> overlap(Edit("f.py", 2, 4, ()), Edit("f.py", 5, 4, ("x",)))  # put in after line 4
    False
    """
    return one.first <= other.last and other.first <= one.last


def from_the_bottom(edits: list[Edit]) -> list[Edit]:
    """The order in which no edit moves the lines of a later one; at one place, the first given ends up on top."""
    places = sorted(range(len(edits)), key=lambda i: (edits[i].first, edits[i].last, i), reverse=True)
    return [edits[i] for i in places]


def _read(text: bytes) -> tuple[list[str], str]:
    """The lines of a Python file, each with its own ending, and the encoding that it declares."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(text).readline)
    return list(io.StringIO(text.decode(encoding), newline="")), encoding
