"""How a person writes, where Python leaves the choice: quotes, and powers."""

from __future__ import annotations

import re
from functools import lru_cache

from chainrule.diagnosis.reading.source import lines_of

_POWER = re.compile(r"([\w.]+) \*\* ([\w.]+)")  # of a name or a number: what is longer has its spaces


class Style:
    """What one file prefers."""

    def __init__(self, file: str) -> None:
        self.single, self.tight = _habits("\n".join(lines_of(file)))

    def quoted(self, text: str) -> str:
        """A name with the quotes of the file: `p['w']`, where most keys stand so."""
        return text.replace('"', "'") if self.single and "'" not in text else text

    def power(self, text: str) -> str:
        """A power with the spaces of the file: `t**2`, where no other is."""
        return f"{simple[1]}**{simple[2]}" if self.tight and (simple := _POWER.fullmatch(text)) else text


@lru_cache(maxsize=64)
def _habits(text: str) -> tuple[bool, bool]:
    """Whether keys stand in single quotes, and powers without spaces."""
    return text.count("['") > text.count('["'), "**" in text and not re.search(r"\w \*\* ", text)
