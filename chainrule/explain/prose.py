"""Sentences as every document sets them."""

from __future__ import annotations


def sentence(text: str) -> str:
    """`text` as a sentence, unless it begins with a name.

    >>> sentence("the mean divides")
    'The mean divides.'
    """
    text = text[:1].upper() + text[1:] if text.split(" ")[0].isalpha() else text
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
