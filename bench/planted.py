"""The corpus of planted mistakes: bench/mistakes/NAME.py, each a right program with hand-written gradients.

A comment below a statement (of one line) says what may stand in its place:

    b.g = out.g.sum(0)
    # ~ wrong-scale: b.g = out.g.mean(0)                 a mistake, and its cause
    # ~ wrong-axis|wrong-shape: b.g = out.g.sum(1)       several causes are accepted, the first is the best
    # ~ missing-gradient:                                the statement is left out
    # ~ missing-gradient (b1, b2):                       and the gradients that are then missing go by these names
    # = b.g = torch.ones(len(out)) @ out.g               right, however unusual

` ;; ` in the text stands for the end of a line. CHECK names what is checked, `inputs()` gives its arguments,
KWARGS (both are expressions) what `check` is given besides. What is checked is a file without these comments.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import random
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

CORPUS = Path(__file__).parent / "mistakes"
SPECIAL = re.compile(r"\s*# ?(?P<sort>[~=])(?: |$)(?P<rest>.*)")
CAUSES = re.compile(r"(?P<causes>[a-z|-]+)\s*(?:\((?P<names>[^)]*)\))?\s*:(?P<text>.*)")
LOCAL = re.compile(r"(?:d|grad_?)(\w+)|(\w+?)_(?:g|grad)")  # dw, grad_w, w_grad
_count = itertools.count()


@dataclass(frozen=True)
class Change:
    """What may stand in place of one statement of a corpus file."""

    at: int  # the statement's line in the corpus file
    before: str  # the statement as it is in the right program
    lines: tuple[str, ...]  # none where the statement is left out
    kind: str  # "mistake" or "variant"
    causes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # the gradients that the statement sets; none where it sets a temporary value

    @property
    def text(self) -> str:
        return " ;; ".join(line.strip() for line in self.lines) or "(left out)"


@dataclass(frozen=True)
class Place:
    """A change as it stands in the planted source: on lines `first` to `last`, or left out."""

    change: Change
    first: int | None
    last: int | None

    def holds(self, line: int | None) -> bool:
        return line is not None and self.first is not None and self.last is not None and self.first <= line <= self.last


@dataclass(frozen=True)
class Planted:
    """A program of the corpus as it stands ("right"), or with one statement or two replaced."""

    program: str
    kind: str  # "mistake", "variant" or "right"
    source: str
    places: tuple[Place, ...] = ()

    @property
    def line(self) -> int | None:
        """The line of the planted statement in `source`; None where it is left out, or nothing is planted."""
        return self.places[0].first if self.places else None

    @property
    def expected_name(self) -> str | None:
        return next(iter(self.places[0].change.names), None) if self.places else None

    @property
    def causes(self) -> tuple[str, ...]:
        return self.places[0].change.causes if self.places else ()

    def __str__(self) -> str:
        where = " and ".join(f"line {p.first or '-'} (corpus {p.change.at}): {p.change.text}" for p in self.places)
        return f"{self.program} {where or 'as it stands'}"

    def load(self, folder: Path) -> ModuleType:
        """Write the source into `folder` under a name of its own, and import it."""
        name = f"{self.program}_{next(_count)}"
        path = folder / f"{name}.py"
        path.write_text(self.source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def subject(module: ModuleType) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What `check` is given: the code, its arguments, and what stands in KWARGS."""
    given = eval(getattr(module, "KWARGS", "{}"), vars(module))
    return eval(module.CHECK, vars(module)), tuple(module.inputs()), dict(given)


class Program:
    """One corpus file: its lines, and the changes that its comments name.

    Raises ValueError, with file and line, where a comment cannot be read or stands below no single-line statement.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self.lines = path.read_text(encoding="utf-8").splitlines()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse("\n".join(self.lines))))

    @cached_property
    def identifiers(self) -> set[str]:
        variables = {node.id for node in self.nodes if isinstance(node, ast.Name)}
        return variables | {node.arg for node in self.nodes if isinstance(node, ast.arg)}

    @cached_property
    def changes(self) -> list[Change]:
        statements = {node.lineno: node for node in self.nodes if isinstance(node, ast.stmt)}
        found, at = [], 0
        for number, line in enumerate(self.lines, 1):
            special = SPECIAL.fullmatch(line)
            if special is None:
                at = number
                continue
            statement = statements.get(at)
            if statement is None or statement.end_lineno != at:
                raise ValueError(f"{self.path}:{number}: the line above is no statement of one line")
            found.append(self._change(number, at, statement, special["sort"], special["rest"]))
        return found

    def _change(self, number: int, at: int, statement: ast.stmt, sort: str, rest: str) -> Change:
        names, causes, text = _targets(statement, self.identifiers), (), rest
        if sort == "~":
            mistake = CAUSES.fullmatch(rest)
            if mistake is None:
                raise ValueError(
                    f"{self.path}:{number}: a mistake reads `# ~ cause: text`, or `# ~ cause (names): text`"
                )
            causes, text = tuple(mistake["causes"].split("|")), mistake["text"]
            if mistake["names"] is not None:
                names = tuple(name.strip() for name in mistake["names"].split(","))
        before = self.lines[at - 1]
        indent = before[: len(before) - len(before.lstrip())]
        lines = tuple(indent + part for part in text.strip().split(" ;; ")) if text.strip() else ()
        return Change(at, before.strip(), lines, "variant" if sort == "=" else "mistake", causes, names)

    def with_changes(self, kind: str, changes: Iterable[Change] = ()) -> Planted:
        by_line = {change.at: change for change in changes}
        source: list[str] = []
        places = []
        for number, line in enumerate(self.lines, 1):
            if SPECIAL.fullmatch(line):
                continue
            change = by_line.get(number)
            if change is None:
                source.append(line)
                continue
            here = len(source) + 1
            source += change.lines
            places.append(Place(change, here, len(source)) if change.lines else Place(change, None, None))
        return Planted(self.name, kind, "\n".join(source) + "\n", tuple(places))

    def cases(self) -> list[Planted]:
        """The program as it stands, and with each of its changes."""
        return [self.with_changes("right"), *(self.with_changes(change.kind, [change]) for change in self.changes)]

    def pairs(self, most: int, seed: int = 0) -> list[Planted]:
        """At most so many pairs of mistakes in different statements, the same ones for the same seed."""
        mistakes = [change for change in self.changes if change.kind == "mistake"]
        both = [pair for pair in itertools.combinations(mistakes, 2) if _both_show(*pair)]
        chosen = random.Random(f"{self.name} {seed}").sample(both, min(most, len(both)))
        return [self.with_changes("mistake", pair) for pair in chosen]


def programs(only: str | None = None) -> list[Program]:
    """The corpus files, or those whose names contain `only`."""
    return [Program(path) for path in sorted(CORPUS.glob("*.py")) if only is None or only in path.stem]


def _both_show(first: Change, second: Change) -> bool:
    """Whether neither mistake hides the other: they set other gradients, and a wrong temporary value is still read."""
    if first.at == second.at or set(first.names) & set(second.names):
        return False
    for made, read in ((first, second), (second, first)):
        temporary = re.compile(rf"\b{re.escape(made.before.split(' = ')[0])}\b")
        if not made.names and temporary.search(read.before) and not temporary.search(read.text):
            return False
    return True


def _targets(statement: ast.stmt, identifiers: set[str]) -> tuple[str, ...]:
    """The values whose gradients a statement sets: `x` for `x.g = ...`; `dw` means `w`, if there is a `w`."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = [t for target in statement.targets for t in getattr(target, "elts", [target])]
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        targets = [statement.target]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [statement.value.func]  # w.g.index_add_(...)
    names = (_gradient_of(target, identifiers) for target in targets)
    return tuple(name for name in names if name is not None)


def _gradient_of(target: ast.expr, identifiers: set[str]) -> str | None:
    if isinstance(target, ast.Name):
        local = LOCAL.fullmatch(target.id)
        name = (local[1] or local[2]) if local else None
        return next((n for n in (name, name and name.lower()) if n in identifiers), None)  # dW means w
    if isinstance(target, ast.Attribute) and target.attr == "g":
        return ast.unparse(target.value)
    if isinstance(target, ast.Attribute | ast.Subscript):  # dw.add_(...), w.g[i] = ...
        return _gradient_of(target.value, identifiers)
    return None
