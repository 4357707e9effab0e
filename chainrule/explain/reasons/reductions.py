"""Sums, means and the like: many elements become one."""

from __future__ import annotations

import math

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.reasons.slopes import place
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics.term import Term, element, equation, fraction, letter, number, partial, summed


def _count(step: LocalStep) -> int:
    """How many elements become one."""
    return math.prod(step.shape) // max(math.prod(step.out_shape), 1)


@reason("sum", "nansum", "sum_to_size")
def total(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("Each element of ", step.of, f" enters one sum with the weight 1 ({generic.counted(_count(step), 'element')} to a sum), so each gets the "
         "whole gradient of its sum: it is spread back over the axes that were summed"), "Sum",
    )  # fmt: skip
    said = "every element of a sum gets its whole gradient"
    return Reason(
        said, (paragraph, generic.jacobian(step, "Its entries are ones and zeros."), generic.passed_back(step))
    )


@reason("mean", "nanmean")
def average(step: LocalStep) -> Reason | None:
    if len(step.shape) > 6:
        return None
    count, letters, over = _count(step), place(step.shape, step.shape), generic.axes_of(step)
    one, summed_over = element(step.of, letters), "".join(letters[a] for a in over)
    kept = "".join("0" if i in over else c for i, c in enumerate(letters))
    kept = kept if len(step.out_shape) == len(step.shape) else kept.replace("0", "")
    out = element(step.out, kept)
    paragraphs = (
        Paragraph((step.out, f" is the sum of N elements divided by their number, and here N is {count:,}:"), "Mean",
                  equation(out, Term("scale", (fraction(number(1), letter("N")), summed(summed_over, one))))),
        Paragraph(("Moving one element by a little moves the mean by one N-th of it, so each element gets one N-th of the "
                   "gradient. Without the division the gradient would grow with N; where the mean goes over a batch, the "
                   "learning rate would have to shrink as the batch grows.",), "Why divide by N",
                  equation(partial(out, one), fraction(number(1), letter("N")))),
        generic.passed_back(step),
    )  # fmt: skip
    return Reason("a mean of N gives each element 1/N of its gradient", paragraphs)


@reason("amax", "amin", "max", "min", "median", "cummax", "cummin", "order family")
def chosen(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("Each result is one of the elements of ", step.of, " (or lies between two of them): it moves with those, and with no other "
         "as long as the order stays the same. So the gradient goes to what was chosen, and the others get zero"), "Choice",
    )  # fmt: skip
    kink = [Paragraph((f"By convention, {step.note}.",), "Ties")] if step.note else []
    return Reason(
        "the chosen element gets the gradient, the others zero",
        (paragraph, generic.jacobian(step), generic.passed_back(step), *kink),
    )


@reason("var", "std", "var_mean", "std_mean", "covariance family")
def spread(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("Moving an element of ", step.of, " changes its own distance from the mean, and the mean as well. The second path "
         "adds nothing: the distances from the mean sum to zero, so what is left is proportional to each element's distance "
         "from the mean",), "Variance",
    )  # fmt: skip
    said = (
        "each element moves the spread in proportion to its distance from the mean; the path through the mean cancels"
    )
    return Reason(said, (paragraph, generic.jacobian(step), generic.passed_back(step)))


@reason("cumsum", "cumprod", "logcumsumexp")
def running(step: LocalStep) -> Reason:
    weights = "" if step.operation == "cumsum" else ", each weighted by the slope there"
    paragraph = Paragraph(
        ("An element of ", step.of, " enters the results at its own place and at every later one, so it collects the gradients "
         f"from there to the end{weights}: the scan runs backwards"), "Scan",
    )  # fmt: skip
    said = f"an element enters every later result: collected from the end{weights}"
    return Reason(said, (paragraph, generic.jacobian(step, "It is triangular."), generic.passed_back(step)))


@reason("diff", "trapezoid", "trapz", "cumulative_trapezoid", "gradient")
def neighbours(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        (step.out, " holds weighted sums of neighbours in ", step.of, "; each neighbour gets the gradient of the sums that it "
         "entered, with the same weights"), "Neighbours",
    )  # fmt: skip
    return Reason(
        "each neighbour gets the gradients of the sums that it entered", (paragraph, generic.passed_back(step))
    )
