"""Writing a text to the file that a person named."""

from __future__ import annotations

import os
from pathlib import Path

from chainrule.errors import ChainruleError


def write(text: str, path: str | os.PathLike[str], what: str, *endings: str) -> None:
    """Raises ChainruleError for a name with another ending than the format has, and where the file cannot be written.

    >>> write("<svg/>", "graph.png", "an SVG picture", ".svg")
    Traceback (most recent call last):
    chainrule.errors.ChainruleError: graph.png would hold an SVG picture; end its name in .svg
    """
    if Path(path).suffix.lower() not in endings:
        raise ChainruleError(f"{path} would hold {what}; end its name in {' or '.join(endings)}")
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ChainruleError(f"cannot write {what} to {path}: {error.strerror}; give another path") from error
