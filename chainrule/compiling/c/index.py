"""Positions in an array: sums of loop variables with whole factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Atom = (
    str | int | tuple[object, ...]
)  # a loop variable or a C expression by its text, or a dimension of a view by its number


Indices = tuple["Index", ...]


@dataclass(frozen=True)
class Index:
    """`const + factor * atom + ...`.

    >>> str(Index.of("i") * 2 + Index.of("k") + Index(1))
    '2 * i + k + 1'
    """

    const: int = 0
    terms: tuple[tuple[Atom, int], ...] = ()

    @staticmethod
    def of(atom: Atom) -> Index:
        return Index(0, ((atom, 1),))

    def __add__(self, other: Index) -> Index:
        total = dict(self.terms)
        for atom, factor in other.terms:
            total[atom] = total.get(atom, 0) + factor
        kept = tuple(sorted(((a, f) for a, f in total.items() if f), key=lambda term: str(term[0])))
        return Index(self.const + other.const, kept)

    def __mul__(self, factor: int) -> Index:
        return Index(self.const * factor, tuple((a, f * factor) for a, f in self.terms) if factor else ())

    def at(self, position: Callable[[Atom], Index]) -> Index:
        """The index where each atom is replaced by an index."""
        total = Index(self.const)
        for atom, factor in self.terms:
            total = total + position(atom) * factor
        return total

    def through(self, places: Indices) -> Index:
        """The index where each dimension is replaced by its place."""
        return self.at(lambda d: places[d] if isinstance(d, int) else Index.of(d))

    def factor(self, atom: Atom) -> int:
        return dict(self.terms).get(atom, 0)

    def __str__(self) -> str:
        text = ""
        for atom, factor in self.terms:
            size = str(atom) if abs(factor) == 1 else f"{abs(factor)} * {atom}"
            text += (" - " if factor < 0 else " + " if text else "") + size
        if self.const or not text:
            text += f" {'-' if self.const < 0 else '+'} {abs(self.const)}" if text else str(self.const)
        return text.strip()


def flat(index: Indices, shape: tuple[int, ...]) -> Index:
    """The place of an element in the memory of a contiguous array."""
    total = Index()
    for position, size in zip(index, shape):
        total = total * size + position
    return total
