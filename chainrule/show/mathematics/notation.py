"""What every notation does: a table from the signs of terms to spellings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chainrule.show.mathematics.term import Term

Show = Callable[[Term], str]
Spelling = str | Callable[[Term, Show], str]  # a template with %s for each part, or a function


def printed(term: Term, table: Mapping[str, Spelling]) -> str:
    """`term` in the notation that `table` spells."""

    def show(part: Term) -> str:
        spelling = table[part.sign]
        if isinstance(spelling, str):
            return spelling % tuple(show(p) for p in part.parts)
        return spelling(part, show)

    return show(term)


def bare(term: Term) -> Term:
    """What stands in the parentheses, where the notation groups it by other means: above a fraction bar, say."""
    return term.parts[0] if term.sign == "parens" else term


def branches(term: Term) -> tuple[list[tuple[Term, Term]], Term]:
    """The (value, condition) pairs of nested cases, and what holds otherwise.

    >>> from chainrule.show.mathematics.term import cases, name
    >>> len(branches(cases(name("a"), name("p"), cases(name("b"), name("q"), name("c"))))[0])
    2
    """
    pairs = []
    while term.sign == "cases":
        value, condition, otherwise = term.parts
        pairs.append((value, condition))
        term = bare(otherwise)
    return pairs, term


def axes_in_words(axes: tuple[str, ...]) -> str:
    """Axes for a subscript.

    >>> axes_in_words(("0",)), axes_in_words(("0", "2")), axes_in_words(("-1",))
    ('axis 0', 'axes 0, 2', 'last axis')
    """
    if axes == ("-1",):
        return "last axis"
    return f"ax{'i' if len(axes) == 1 else 'e'}s {', '.join(axes)}" if axes else ""
