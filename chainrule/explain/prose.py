"""Sentences as every document sets them."""

from __future__ import annotations


def sentence(text: str) -> str:
    """`text` as a sentence, unless it begins with a name.

    >>> sentence("the mean divides"), sentence("subtracted, so the sign turns"), sentence("w1 is added")
    ('The mean divides.', 'Subtracted, so the sign turns.', 'w1 is added.')
    """
    text = text[:1].upper() + text[1:] if text.split(" ")[0].rstrip(",;:").isalpha() else text
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
