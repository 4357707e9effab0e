"""Losses that most networks end in: the slope of one term, and why the mean divides by N."""

from __future__ import annotations

import math

from torch import fx

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.reasons.slopes import place
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics import text
from chainrule.show.mathematics.term import (
    Term,
    call,
    element,
    equation,
    fraction,
    letter,
    number,
    parens,
    partial,
    power,
    scale,
    sub,
    summed,
)  # fmt: skip


def _is_plain(step: LocalStep) -> bool:
    """Whether the loss is one number, of a prediction and a target, with no weights."""
    return not step.out_shape and len([k for k in step.given if k != "reduction"]) == 2


def _averaged(step: LocalStep) -> bool:
    """Whether the loss is the mean of its terms, and not their sum."""
    return step.given.get("reduction", "mean") == "mean"


def _terms(step: LocalStep, term: Term, indices: str) -> Term:
    total = summed(indices, term)
    return scale(fraction(number(1), letter("N")), total) if _averaged(step) else total


def _divided(step: LocalStep) -> list[Paragraph]:
    if not _averaged(step):
        return []
    count = math.prod(step.shape)
    return [
        Paragraph(
            (f"The loss is the mean of N = {count:,} terms, so each passes back one N-th of its slope. Without the division the "
             "gradient would grow with the batch, and the learning rate would have to shrink with it.",), "Why divide by N",
        )
    ]  # fmt: skip


def _other(step: LocalStep) -> Term | None:
    """The prediction or the target, whichever `of` is not, where both have the same shape."""
    alike = [t for t, n in step.others if isinstance(n, fx.Node) and tuple(n.meta["val"].shape) == step.shape]
    return alike[0] if len(alike) == 1 and len(step.arguments) == 2 else None


@reason("mse_loss")
def squared_error(step: LocalStep) -> Reason | None:
    other, i = _other(step), place(step.shape, step.shape)
    if other is None or not _is_plain(step):
        return None
    one, two = element(step.of, i), element(other, i)
    slope = scale(number(2), parens(sub(one, two)))
    paragraphs = (
        Paragraph(("The loss adds up squares:",), "Loss",
                  equation(step.out, _terms(step, power(parens(sub(one, two)), number(2)), i))),
        Paragraph(("The slope of a square is twice what is squared:",), "Slope",
                  equation(partial(step.out, one), fraction(slope, letter("N")) if _averaged(step) else slope)),
        *_divided(step), generic.passed_back(step),
    )  # fmt: skip
    over = ", over the number of terms" if _averaged(step) else ""
    return Reason(f"the slope of a square, 2 ({text(step.of)} - {text(other)}){over}", paragraphs)


@reason("binary_cross_entropy_with_logits")
def logistic(step: LocalStep) -> Reason | None:
    other, i = _other(step), place(step.shape, step.shape)
    if other is None or not _is_plain(step) or step.read is not step.first:
        return None
    one, truth = element(step.of, i), element(other, i)
    slope = sub(call("σ", one), truth)
    paragraphs = (
        Paragraph(("Each term is minus the logarithm of the probability that the sigmoid gives to the truth. The slope of the "
                   "logarithm divides by that probability, the slope of the sigmoid multiplies by it again, and what is left is "
                   "the probability less the truth:",), "σ(x) − y",
                  equation(partial(step.out, one), fraction(slope, letter("N")) if _averaged(step) else slope)),
        *_divided(step), generic.passed_back(step),
    )  # fmt: skip
    return Reason("sigmoid and logarithm together leave the probability less the truth", paragraphs)
