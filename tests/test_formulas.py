"""Each line's formula, as it is drawn, is the line's code: the same names in the same numbers."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator

import pytest
from explained import explained
from zoo import ENTRIES, Entry

from chainrule.explain import Step
from chainrule.explain.names import names_of, pieces
from chainrule.show.mathematics import Term, latex, mathml
from chainrule.show.mathematics.latex import LATEX
from chainrule.show.mathematics.notation import printed

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)

PATTERNS = ("zeros_like", "ones_like", "full_like", "empty_like")  # a tensor read for its shape and dtype alone
TYPES = ("type_as", "to")  # conversions: mathematics has one kind of number


def written(node: ast.AST, names: set[str]) -> Iterator[str]:
    """The names that a line computes with. Left out is what numbers do not depend on: whose dtype, device or shape."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in TYPES:
            yield from written(node.func.value, names)
            return
        arguments = node.args[1:] if node.func.attr in PATTERNS else node.args
        values = [k.value for k in node.keywords if k.arg not in ("dtype", "device")]
        for part in [node.func, *arguments, *values]:
            yield from written(part, names)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr == "g":
        yield f"{node.value.id}.g"
    elif isinstance(node, ast.Name) and node.id in names:
        yield node.id
    else:
        for child in ast.iter_child_nodes(node):
            yield from written(child, names)


def terms(step: Step) -> Iterator[Term]:
    """Every piece of mathematics in a step."""
    if step.formula is not None:
        yield step.formula
    for paragraph in step.derivation:
        yield from (p for p in paragraph.pieces if isinstance(p, Term))
        if paragraph.display is not None:
            yield paragraph.display


def drawn(term: Term) -> Counter[str]:
    """The names in the MathML of a term."""
    found = (element.get("data-name") for element in ET.fromstring(mathml(term)).iter())
    return Counter(name for name in found if name is not None)


def printed_names(term: Term) -> Counter[str]:
    """The names in the LaTeX of a term: each is printed once wherever it is read."""
    found: Counter[str] = Counter()

    def counted(part: Term, show: object) -> str:
        found[part.variable or part.text] += 1
        return LATEX[part.sign](part, show)  # type: ignore[operator]

    assert printed(term, {**LATEX, "name": counted, "gradient": counted}) == latex(term)
    return found


@every_entry
def test_a_formula_has_the_names_of_its_code(entry: Entry) -> None:
    explanation = explained(entry)
    names = names_of(explanation)
    for step in explanation:
        if step.formula is not None:
            said = Counter(written(ast.parse(step.code), names))
            assert said == drawn(step.formula) == printed_names(step.formula), step.code


@every_entry
def test_mathematics_is_well_formed(entry: Entry) -> None:
    for step in explained(entry):
        for term in terms(step):
            for display in (False, True):
                assert ET.fromstring(mathml(term, display=display)).tag == "math"
            assert "None" not in latex(term).replace(r"\text{None}", "")


@every_entry
def test_names_in_code_are_found_where_they_stand(entry: Entry) -> None:
    explanation = explained(entry)
    names = names_of(explanation)
    for step in explanation:
        found = list(pieces(step.code, names))
        assert "".join(piece for piece, _ in found) == step.code
        assert set(step.targets) - {"_"} <= {name for _, name in found}
        assert all(name in ("", piece) for piece, name in found)


@every_entry
def test_steps_find_each_other(entry: Entry) -> None:
    steps = {step.key: step for step in explained(entry)}
    assert len(steps) == len(explained(entry))
    for step in steps.values():
        assert all(steps[key].phase != step.phase for key in step.partners)
        assert all(step.key in steps[key].partners for key in step.partners)
        assert set(step.used_by) <= set(steps)
    read = {name for step in steps.values() for name in step.reads}
    for step in steps.values():
        assert bool(step.used_by) == (not read.isdisjoint(step.targets)), step.code
