"""Layers and losses that are one operation: normalisation, convolution, pooling, recurrence."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics import Term, text


def _say(title: str, sentence: str, prose: str, *names: str, parameters: int = 0, first_only: bool = False) -> None:
    """The reason of `names` in one paragraph, in which `{of}` and `{out}` stand for the values. The arguments
    from number `parameters` on are parameters that serve many places; with `first_only` nothing is said of them."""

    @reason(*names)
    def write(step: LocalStep) -> Reason | None:
        if first_only and step.read is not step.first:
            return None
        if parameters and step.read not in list(step.given.values())[:parameters]:
            return _shared(step)
        paragraph = Paragraph(tuple(_filled(prose, step)), title)
        return Reason(sentence, (paragraph, generic.jacobian(step), generic.passed_back(step)))


def _filled(prose: str, step: LocalStep) -> Iterator[str | Term]:
    """`prose` with the values in place of `{of}` and `{out}`."""
    for piece in re.split(r"(\{\w+\})", prose):
        yield {"{of}": step.of, "{out}": step.out}.get(piece, piece)


def _shared(step: LocalStep) -> Reason:
    said = f"the same {text(step.of)} serves every place: the sum over the places"
    paragraph = Paragraph(
        ("The same ", step.of, " serves every place and every example, so each of its elements gets the sum of what all of them "
         "pass back."), "Parameter",
    )  # fmt: skip
    return Reason(said, (paragraph, generic.jacobian(step), generic.passed_back(step)))


_say(
    "Three paths",
    "the gradient loses its mean and its part along the normalised value: the paths through mean and variance",
    "Each element of {of} reaches {out} on three paths: directly, through the mean, and through the variance of its group. The "
    "first passes the gradient scaled; the second takes its mean away; the third takes its part along the normalised value "
    "away. What is left changes neither the mean nor the length of the group, as it must: the forward pass threw both away.",
    "layer_norm", "group_norm", "instance_norm", "normalisation family", parameters=1,
)  # fmt: skip
_say(
    "Two paths",
    "the gradient loses its part along the normalised value: the path through the root mean square",
    "Each element of {of} reaches {out} on two paths: directly, and through the root mean square of its group. The first passes "
    "the gradient scaled; the second takes its part along the normalised value away, so that what is left does not change the "
    "length of the group: the forward pass threw it away.",
    "rms_norm", parameters=1,
)  # fmt: skip
_say(
    "Patches",
    "each output is a patch times the kernel; the way back gives each side the other",
    "Each element of {out} sums the products of a patch of the input with a kernel. The same kernel meets every patch, so its "
    "gradient sums over all places and all examples; an input element gets the sum from all the patches that it lies in. Both "
    "sums are convolutions again.",
    "convolution family", parameters=2,
)  # fmt: skip
_say(
    "Windows",
    "each window passes its gradient back to the elements that made its result",
    "Each element of {out} is made from the elements of a window of {of}. The gradient goes back to those elements, to each "
    "with the slope that it had there; where windows overlap the parts are added.",
    "pooling family", "resampling family", first_only=True,
)  # fmt: skip
_say(
    "Loss",
    "the slope of each term of the loss, divided as the mean divides",
    "{out} is put together from terms, one for each element or each example. Each passes back its own slope; where the terms are "
    "averaged, it is divided by what the mean divides by, so that the gradient does not grow with the batch.",
    "losses family", "class_losses family", "margin_losses family",
)  # fmt: skip
_say(
    "Length",
    "the direction in which the length grows",
    "{out} is a length, or is made of lengths. The gradient goes in the direction in which the length grows fastest: for the "
    "Euclidean length, the one in which the value, or the difference, already points.",
    "norms family", "distances family", "cosine_similarity", "pairwise_distance", "cosine_embedding_loss",
)  # fmt: skip
_say(
    "Through time",
    "the gradient runs backwards through time, and the weights collect a share at every step",
    "The same weights are used at every time step, and each state feeds the next. So the gradient runs backwards through time, "
    "and the weights get the sum of what every step passes back.",
    "recurrent family",
)
_say(
    "Attention",
    "products with the transposed operands around the slope of a softmax",
    "The scores are products of queries and keys, a softmax makes weights of them, and the values are averaged by these weights. "
    "The way back is the same chain reversed: transposed products around the slope of the softmax.",
    "attention family",
)
_say(
    "Differential",
    "read off from the differential of the result",
    "The step is found by writing down how {out} changes when {of} changes a little, its differential, and reading off what "
    "multiplies the change; moving the gradient to the other side of a product transposes the factor.",
    "linear_algebra family", "systems family", "decompositions family",
)  # fmt: skip
_say(
    "Transform",
    "a Fourier transform is linear; the way back is its conjugate transpose",
    "The transform is a product with a fixed matrix, so its slope is that matrix, whatever the values, and the way back is the "
    "product with its conjugate transpose: a transform in the other direction.",
    "fourier family",
)
_say(
    "Products",
    "the gradient times the other factors, summed over every result that the element reached",
    "Each element of {out} is a sum of products, and in each product an element of {of} stands beside other factors. It gets the "
    "gradient of every result that it reached, multiplied by what it stood beside there.",
    "products family", "contractions family",
)  # fmt: skip
_say(
    "Product",
    "the gradient times the product of all the other elements",
    "{out} multiplies the elements of {of} together, so each of them is weighted by the product of all the others.",
    "prod",
)
_say(
    "Slopes",
    "the gradient is multiplied by the slope at each place, and summed where one parameter serves many places",
    "Each element of {out} depends on few elements at its own place. The gradient is multiplied by the slope there; a parameter "
    "that serves many places gets the sum of their shares.",
    "activations family", "arithmetic family",
)  # fmt: skip


@reason("batch_norm")
def batch_norm(step: LocalStep) -> Reason | None:
    """In training as the other norms; else mean and variance are numbers that were stored."""
    if step.given.get("training") or step.read is not step.first:
        return None
    paragraph = Paragraph(
        ("Outside of training the mean and the variance are numbers that were stored: they do not move with ", step.of,
         ", and each element is only shifted and scaled."), "Scale",
    )  # fmt: skip
    return Reason("times the scale, which is a stored number", (paragraph, generic.passed_back(step)))
