"""A card of the rule book: one operation, its rule as code and as a formula, and a checked example."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, field
from typing import Any

import torch

from chainrule.checking.examples import Sample, of_opening, of_rule
from chainrule.checking.verdict import Verdict
from chainrule.cli.lookup import Entry, first_sentence, full_path, spellings
from chainrule.derivation import Derivation
from chainrule.rules.families import about, family_of
from chainrule.show.formula import formula
from chainrule.show.python import path_of

CONSTANTS = "Operations whose result counts as constant."


@dataclass
class Row:
    """An argument or the output in the example: its shape, or what it is, and the shape of its gradient."""

    name: str
    value: str
    gradient: str


@dataclass
class Card:
    """What there is to say about one operation; text, for people and for programs."""

    name: str
    kind: str  # "rule", "opening" or "constant"
    family: str
    call: str
    about: str
    torch: str  # the name in torch's documentation
    code: str = ""
    formula: list[str] = field(default_factory=list)
    derivation: dict[str, list[str]] = field(default_factory=dict)  # the paragraphs, for each gradient
    shapes: list[Row] = field(default_factory=list)
    source: str = ""
    note: str = ""
    spellings: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    example: str = ""
    verdict: str = ""
    ok: bool | None = None  # None where there is no example


def card(entry: Entry) -> Card:
    """The card of an entry of the book, with its first sample derived and verified."""
    family, line = "no gradient", CONSTANTS
    if entry.backward is not None:
        family = family_of(entry.backward)
        line = about().get(family, "")
    described = first_sentence(entry.function) or line
    where = full_path(entry.function)
    made = Card(entry.name, "rule", family, _call(entry), described, where, spellings=spellings(entry))
    made.source = f"PyTorch's definition, {where}"
    if entry.constant:
        made.kind, made.note = "constant", f"the result {entry.constant}: it passes no gradient"
        return made
    made.code = without_decorators(entry.backward)
    if entry.rule is not None:
        made.source, made.note = entry.rule.source or made.source, entry.rule.note
        made.samples = list(entry.rule.samples)
        sample = of_rule(entry.rule)
        found = (sample, sample.derive()) if sample is not None else None
    else:
        made.kind = "opening"
        found = of_opening(entry.function, entry.replacement)
        made.samples = [found[0].text] if found is not None else []
    if found is not None:
        _fill(made, *found)
    return made


def _fill(made: Card, sample: Sample, d: Derivation) -> None:
    verdict = d.verify()
    made.formula = formula(d.program)
    steps = [step for step in d.explain() if step.phase == "backward" and step.derivation]
    made.derivation = {step.targets[0]: [str(paragraph) for paragraph in step.derivation] for step in steps}
    made.shapes = rows(sample, d)
    made.example, made.verdict, made.ok = str(d), str(verdict), bool(verdict)
    if not made.ok and _by_convention(verdict):
        made.ok = True
        made.verdict += "\nnote: autograd's gradient is kept to, which is not the slope of this function either"


def _by_convention(verdict: Verdict) -> bool:
    """Whether rule and autograd agree on something else than the slope (the CTC loss is differentiated so)."""
    return all(row.alone in ("", "differences") for row in verdict.rows)


def rows(sample: Sample, d: Derivation) -> list[Row]:
    """The arguments of the example and its output."""
    found = []
    positional, keywords = sample.given()
    gradients = {name: tuple(g.shape) for name, g in d.grads.items() if g is not None}
    for name, value in (positional | keywords).items():
        parts = {name: value}
        if isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor) for v in value):
            parts = {f"{name}.{i}": v for i, v in enumerate(value)}
        for part, v in parts.items():
            shape = gradients.get(part)
            found.append(Row(part, _described(v), "" if shape is None else str(shape)))
    return [*found, Row("out", str(tuple(d.output.shape)), str(tuple(d.output.shape)))]


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    kind = str(value.dtype).removeprefix("torch.")
    return f"{tuple(value.shape)}" if kind == "float64" else f"{tuple(value.shape)} {kind}"


def _call(entry: Entry) -> str:
    """The call with the names of its arguments."""
    if entry.backward is None:
        return path_of(entry.function)
    parameters = list(inspect.signature(entry.backward).parameters.values())
    parameters = parameters[1:] if entry.rule is not None else parameters
    parameters = [p.replace(annotation=p.empty) for p in parameters]
    if inspect.isgetsetdescriptor(entry.function):
        return f"{parameters[0].name}.{entry.name}"
    return f"{path_of(entry.function)}{inspect.Signature(parameters)}"


def without_decorators(function: Any) -> str:
    """A function as it is written, from its `def` on.

    >>> from chainrule.rules import BOOK
    >>> print(without_decorators(BOOK.rules["matmul"].backward).splitlines()[0])
    def matmul(out, a, b):
    """
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    definition = ast.parse(source).body[0]
    return "\n".join(source.split("\n")[definition.lineno - 1 :])
