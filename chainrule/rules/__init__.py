"""The rule book, one file a family. A line that knows a derivative lives in this room."""

from chainrule.rules import (
    activations,
    arithmetic,
    attention,
    elementary,
    indexing,
    losses,
    normalisation,
    products,
    random,
    reductions,
    selections,
    shaping,
)
from chainrule.rules.book import BOOK, Rule, RuleBook, constant, opening, rule

FAMILIES = (arithmetic, elementary, activations, selections, products, reductions, shaping, indexing, losses,
            normalisation, attention, random)  # fmt: skip

__all__ = ["BOOK", "FAMILIES", "Rule", "RuleBook", "constant", "opening", "rule"]
