"""Programs that stand in a test as text, and are read as files are."""

from __future__ import annotations

import itertools
import linecache
from typing import Any

_count = itertools.count()


def of_source(text: str, **space: Any) -> dict[str, Any]:
    """What `text` defines, with `space` as what it knows already."""
    file = f"<source {next(_count)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # as notebooks do
    made = {"__name__": "__main__", **space}
    exec(compile(text, file, "exec"), made)
    return made
