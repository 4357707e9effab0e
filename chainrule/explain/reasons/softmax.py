"""Softmax, its logarithm, and the losses that end in it: why p - y."""

from __future__ import annotations

import math

from torch import fx

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.reasons.slopes import place
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics.term import (
    Term,
    call,
    compare,
    element,
    equation,
    fraction,
    indicator,
    letter,
    name,
    parens,
    partial,
    scale,
    summed,
)  # fmt: skip


def _kronecker(i: str, j: str) -> Term:
    return indicator(compare(letter(i), "=", letter(j)))


def _along(step: LocalStep) -> tuple[str, str]:
    """The indices of an element, and of another one along the axis of the softmax, z."""
    letters, axis = place(step.shape, step.shape), generic.axes_of(step)[0]
    return letters, letters[:axis] + "z" + letters[axis + 1 :]


@reason("softmax")
def probabilities(step: LocalStep) -> Reason | None:
    if not 0 < len(step.shape) < 7:
        return None
    here, there = _along(step)
    this = next((c for c in here if c not in there), "i")
    below = summed("z", call("exp", element(step.of, there)))
    paragraphs = (
        Paragraph(("Along the axis of the softmax, whose other elements have the index z,",), "Softmax",
                  equation(element(step.out, here), fraction(call("exp", element(step.of, here)), below))),
        Paragraph(
            ("Every result has every element of ", step.of, " in its denominator, so the Jacobian along the axis is full, not "
             "diagonal:"), "Slopes",
            equation(partial(element(step.out, here), element(step.of, there)),
                     scale(element(step.out, here), parens(Term("sub", (_kronecker(this, "z"), element(step.out, there)))))),
        ),
        generic.jacobian(step),
        Paragraph(
            ("Multiplied out, the product with the gradient needs no matrix: from each gradient the average of all of them is "
             "taken away, weighted by the probabilities, and the rest is multiplied by the probability. That is why the gradients along the axis sum to zero: adding the same "
             "number to all elements changes no probability.",), "Product",
        ),
        generic.passed_back(step),
    )  # fmt: skip
    return Reason("less the average that the probabilities weigh, times the probability", paragraphs)


@reason("log_softmax")
def log_probabilities(step: LocalStep) -> Reason | None:
    if not 0 < len(step.shape) < 7:
        return None
    here, there = _along(step)
    this = next((c for c in here if c not in there), "i")
    paragraphs = (
        Paragraph(
            ("The logarithm of a softmax is the element less the logarithm of the sum of exponentials along the axis, whose "
             "slope is the softmax itself",), "Slopes",
            equation(partial(element(step.out, here), element(step.of, there)),
                     Term("sub", (_kronecker(this, "z"), call("exp", element(step.out, there))))),
        ),
        generic.jacobian(step), generic.passed_back(step),
    )  # fmt: skip
    return Reason("each gradient less its share, by probability, of all the gradients along the axis", paragraphs)


@reason("logsumexp")
def log_sum(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("The slope of the logarithm of a sum of exponentials towards each element is that element's share in the sum: the "
         "softmax. The gradient is handed out by these shares",), "Shares",
    )  # fmt: skip
    return Reason(
        "the gradient is handed out by the softmax", (paragraph, generic.jacobian(step), generic.passed_back(step))
    )


def _is_plain(step: LocalStep) -> bool:
    """Whether each example has one right class, none is left out, and all weigh the same."""
    options = {k: v for k, v in step.given.items() if k not in ("x", "target", "reduction")}
    prediction, target = [*step.given.values(), None][:2]
    if step.read is not prediction or not isinstance(target, fx.Node) or target.meta["val"].is_floating_point():
        return False
    ignored = options.pop("ignore_index", -100)
    plain = all(v is None or v == 0.0 for v in options.values())
    return plain and not bool((target.meta["val"] == ignored).any())


@reason("cross_entropy")
def cross_entropy(step: LocalStep) -> Reason | None:
    if not _is_plain(step):
        return None
    count = math.prod(step.shape) // max(step.shape[1] if len(step.shape) > 1 else step.shape[0], 1)
    p, j, t = name("p"), letter("j"), letter("t")
    logit = element(step.of, "j")
    loss = Term("neg", (call("log", element(p, "t")),))
    spelled = Term("sub", (call("log", summed("j", call("exp", logit))), element(step.of, "t")))
    paragraphs = (
        Paragraph(
            ("The loss of one example is minus the logarithm of the probability p that the softmax gives to the right class t,",),
            "Loss", equation(equation(letter("ℓ"), loss), spelled),
        ),
        Paragraph(
            ("The slope of the first term is the softmax, that of the second is one at the right class: the two Jacobians, of the "
             "logarithm and of the softmax, cancel to p − y, where y is one at the right class and zero elsewhere.",), "p − y",
            equation(partial(letter("ℓ"), logit), Term("sub", (element(p, "j"), indicator(compare(j, "=", t))))),
        ),
        *([Paragraph((f"The loss is the mean over N = {count:,} examples, so each example passes back one N-th of its gradient. "
                      "Without the division the gradient would grow with the batch.",), "Why divide by N")]
          if step.given.get("reduction", "mean") == "mean" else []),
        generic.passed_back(step),
    )  # fmt: skip
    return Reason("softmax and logarithm together leave p - y, the probabilities less the truth", paragraphs)
