"""Which reason belongs to which operation: one of its own, its family's, or what holds for any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.step import Paragraph


@dataclass(frozen=True)
class Reason:
    """Why a rule is what it is: one sentence, and the derivation."""

    sentence: str
    paragraphs: tuple[Paragraph, ...]
    minor: bool = False  # it goes without saying where the line has other reasons


Writer = Callable[[LocalStep], Reason | None]
_WRITERS: dict[str, Writer] = {}


def reason(*names: str) -> Callable[[Writer], Writer]:
    """Write the reason for these operations and families of the rule book. A writer that returns None leaves the
    step to its family, and the family's to what holds for any step."""

    def add(writer: Writer) -> Writer:
        _WRITERS.update(dict.fromkeys(names, writer))
        return writer

    return add


def reason_of(step: LocalStep) -> Reason:
    """The reason for one step in the names of the program that it is taken from."""
    if step.own:
        return _own(step)
    if step.complex:
        return _complex(step)
    kinds = [step.operation, *(["elementwise"] if step.elementwise else []), f"{step.family} family", "any"]
    for kind in kinds:
        writer = _WRITERS.get(kind)
        found = writer(step) if writer is not None else None
        if found is not None:
            return found
    raise LookupError(f"no reason for {step.operation}")  # `any` has one


def _complex(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("For complex numbers x + iy, the gradient of a real loss is its slope towards x plus i times its slope towards y. With "
         "this convention the slopes of the operation are conjugated on the way back.",), "Complex numbers",
    )  # fmt: skip
    return Reason(f"the step of {step.operation} for complex numbers", (paragraph, generic.passed_back(step)))


def _own(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        (f"{step.operation} has a backward step of its own, written by hand; it is taken as it is, and what happens inside "
         "is not looked at.",), f"The step of {step.operation}",
    )  # fmt: skip
    return Reason(f"the backward step that {step.operation} has of its own", (paragraph, generic.passed_back(step)))


@reason("any")
def any_step(step: LocalStep) -> Reason:
    return Reason(
        f"the vector-Jacobian product of {step.operation}",
        (generic.jacobian(step), generic.passed_back(step), *generic.broadcasting(step)),
    )
