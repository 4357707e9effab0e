"""Explanations: what a step says in mathematics is computed and compared with what it gives."""

from __future__ import annotations

import pytest
import torch
from evaluated import NotComputed, holds
from torch import Tensor
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.explain import Explanation
from chainrule.show.mathematics import Term, text


def explained(entry: Entry) -> Explanation:
    args = entry.arguments()
    output = entry(*args)
    return cr.derive(entry, *args, upstream=torch.randn_like(output) if output.ndim else None).explain()


def values(e: Explanation) -> dict[str, Tensor]:
    found = {step.targets[0]: step.value for step in e if len(step.targets) == 1}
    upstream = e.derivation.program.upstream
    return found if upstream is None else found | {"out_g": upstream.meta["val"]}


def computed(equation: Term, known: dict[str, Tensor]) -> bool | None:
    """Whether it holds; None where it is not computed."""
    try:
        return holds(equation, known)
    except NotComputed:
        return None


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_formulas_say_what_the_code_computes(entry: Entry) -> None:
    e = explained(entry)
    known = values(e)
    for step in e:
        if step.formula is not None:
            assert computed(step.formula, known) in (True, None), (step.code, text(step.formula))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_the_equations_of_derivations_hold(entry: Entry) -> None:
    e = explained(entry)
    known = values(e)
    for step in e:
        several = any(p.title == "Paths meet" for p in step.derivation)
        for paragraph in step.derivation:
            equation = paragraph.display
            if equation is None or equation.sign != "equation":
                continue
            own = set(equation.parts[0].names) & set(step.targets)
            if several and own and paragraph.title != "Together":
                continue  # the share of one path among several
            assert computed(equation, known) in (True, None), (step.code, str(paragraph))


def test_most_formulas_are_computed_by_these_tests() -> None:
    found = [
        computed(step.formula, values(e)) is not None
        for entry in ENTRIES[::7]
        for e in [explained(entry)]
        for step in e
        if step.formula is not None
    ]
    assert sum(found) > 2 / 3 * len(found), f"{sum(found)} of {len(found)}"
