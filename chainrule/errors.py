"""The one error type, and the place in the person's code that it points to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Site:
    """A line of the person's code: where an operation was written."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        name = self.file if self.file.startswith("<") else Path(self.file).name
        return f"{name}:{self.line}"


class ChainruleError(Exception):
    """What chainrule refuses, in one sentence: the operation, the shapes, the place, what to do.

    >>> str(ChainruleError("matmul: (2, 3) @ (4, 5)", Site("net.py", 7, "lin")))
    'matmul: (2, 3) @ (4, 5) (net.py:7)'
    """

    def __init__(self, message: str, site: Site | None = None) -> None:
        self.site = site
        super().__init__(f"{message} ({site})" if site else message)


class NotFinite(ChainruleError):
    """A value that was to be finite is not."""


class Untold(ChainruleError):
    """What some code returned cannot be told apart: its loss, or whose gradients they are."""


class UnknownName(ChainruleError, KeyError):
    """A name that a dictionary of ours does not hold; a KeyError too, as of any dictionary."""

    __str__ = Exception.__str__  # a KeyError would show its sentence in quotes
