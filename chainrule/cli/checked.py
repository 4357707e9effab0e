"""`chainrule check`: every target in turn, and what of a file was checked with another of its targets."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.arrays.code import reached
from chainrule.cli import Refused, refusals, targets
from chainrule.cli.candidates import by_functions, candidates, functions_in
from chainrule.diagnosis.reading.forms import form_of
from chainrule.diagnosis.report import Report, clickable


@dataclass(frozen=True)
class Said:
    """What the command line says of the targets: `--input`, `--wrt` and `--loss`."""

    inputs: Sequence[str] = ()
    wrt: Sequence[str] = ()
    loss: str | None = None

    def options(self) -> list[str]:
        """The same, to be given once more."""
        told = [("--input", text) for text in self.inputs] + [("--wrt", name) for name in self.wrt]
        told += [("--loss", self.loss)] if self.loss is not None else []
        return [part for pair in told for part in pair]


@dataclass
class Checked:
    """A target as the person wrote it, with its report, or with the reason that there is none."""

    target: str
    path: Path
    report: Report | None = None
    refused: str = ""
    code: Any = None

    def file(self, file: str | None) -> str:
        """The file as the person wrote it on the command line, or from the current folder."""
        return str(self.path) if file is None or Path(file) == self.path.resolve() else clickable(file)


def alone(name: str, said: Said) -> Checked:
    """A target's report. Raises Refused where it cannot be run."""
    if Path(name).is_file():
        candidates(Path(name))  # which says what is wrong with it
    found = targets.load_to_check(name, said.inputs)
    try:
        with refusals():
            report = found.check(said.wrt or None, said.loss)
    except Refused as error:
        return Checked(name, found.path, refused=error.message, code=found.code)
    return Checked(name, found.path, report, code=found.code)


def each(names: Sequence[str], said: Said) -> list[Checked]:
    """Every target in turn; one that cannot be checked does not keep the others from it."""
    checked: list[Checked] = []
    before = set(sys.modules)
    for name in names:
        path = Path(name) if Path(name).is_file() else Path(name.rpartition(":")[0])
        if checked and checked[-1].path.parent.resolve() != path.parent.resolve():
            _forget(checked[-1].path.parent.resolve(), before)
        try:
            with refusals():
                checked.append(alone(name, said))
        except Refused as error:
            checked.append(Checked(name, path, refused=error.message))
    return checked


def _forget(folder: Path, before: set[str]) -> None:
    """Drop the modules of a folder, so that a file in the next one finds those beside itself."""
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(folder) and "site-packages" not in file and not _own(name):
            del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]


def _own(module: str) -> bool:
    return module.split(".")[0] == "chainrule"


def without_parts(checked: list[Checked]) -> list[Checked]:
    """Without what was checked as a part of another target: a layer whose inputs nobody gave, and the
    torch.autograd.Functions that a function calls; and without functions that were to call some and have no inputs."""
    used = {id(other): _Used(other, other.report) for other in checked if other.report is not None}
    told = {path: _functions_in(path) for path in {c.path for c in checked}}
    return [
        item
        for item in checked
        if not _is_part(item, [other for key, other in used.items() if key != id(item)], *told[item.path])
    ]


def _is_part(item: Checked, others: list[_Used], functions: list[str], callers: list[str]) -> bool:
    name = item.target.rpartition(":")[2]
    if item.report is not None and not item.report.ok:
        return False
    where = [other for other in others if (item.path.resolve(), name) in other.places]
    if name in functions:  # those that a function calls have rows; in a step with gradients of its own they have none
        return any(row.name.startswith(f"{name}.") for other in where for row in other.report.rows)
    if item.report is not None:
        return name in callers and any(other.by_functions for other in where)
    if name in callers and item.code is None:
        return True
    return any(other.calls(item.path.resolve(), name) for other in where)


def _functions_in(path: Path) -> tuple[list[str], list[str]]:
    try:
        return functions_in(path), by_functions(path)
    except (Refused, OSError):
        return [], []


class _Used:
    """What a checked target names, if only through what it calls."""

    def __init__(self, checked: Checked, report: Report) -> None:
        self.report = report
        self.by_functions = any("." in row.name for row in report.rows)
        self.places: set[tuple[Path, str]] = set()  # of functions, and of the classes whose methods they are
        self.names: set[str] = set()  # of what it calls
        for item in reached(checked.code, form_of(checked.code).forward):
            if not isinstance(item, types.FunctionType):
                continue
            file, names = Path(item.__code__.co_filename).resolve(), item.__qualname__.split(".")
            self.places |= {(file, ".".join(names[:k])) for k in range(1, len(names) + 1)}
            self.names |= set(item.__code__.co_names)

    def calls(self, file: Path, name: str) -> bool:
        """Whether a function is called, or the backward pass of a class, which may be used for its forward pass alone."""
        is_class = any(other.startswith(f"{name}.") for path, other in self.places if path == file)
        return ("backward" if is_class else name.rpartition(".")[2]) in self.names
