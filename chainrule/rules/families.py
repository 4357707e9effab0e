"""The families of the rule book: one for each file of rules, with the line at its head."""

from __future__ import annotations

from typing import Any

from chainrule.rules import BOOK, FAMILIES


def family_of(function: Any) -> str:
    """The family of a rule's or an opening's Python function.

    >>> family_of(BOOK.rules["matmul"].backward)
    'products'
    """
    return str(function.__module__.rpartition(".")[2])


def about() -> dict[str, str]:
    """The families in the order of the book, each with its one line."""
    return {m.__name__.rpartition(".")[2]: _line(m.__doc__ or "") for m in FAMILIES}


def _line(text: str) -> str:
    """The first line of a docstring; where a sentence goes on in the second, the first sentence."""
    line = text.strip().split("\n")[0]
    return line if line.endswith(".") else line.split(". ")[0] + "."


def members() -> dict[str, list[str]]:
    """The operations of each family: those with a rule, then those that are recorded as their parts."""
    found: dict[str, dict[str, None]] = {name: {} for name in about()}
    for r in BOOK.rules.values():
        found.get(family_of(r.backward), {})[r.name] = None
    for function, replacement in BOOK.openings.items():
        found.get(family_of(replacement), {})[str(getattr(function, "__name__", function))] = None
    return {name: list(operations) for name, operations in found.items()}
