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
        if first_only and step.read is not step.node.args[0]:
            return None
        given = (*step.node.args[:parameters], *(step.node.kwargs.get(k) for k in ("input", "weight")[:parameters]))
        if parameters and step.read not in given:
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
    "layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm", "normalisation family", parameters=1,
)  # fmt: skip
_say(
    "Patches",
    "each output is a patch times the kernel; the way back gives each side the other",
    "Each element of {out} is the product of a patch of the input with the kernel. The same kernel meets every patch, so its "
    "gradient sums over all places and all examples; an input element lies in several patches and gets the sum from all of "
    "them. Both sums are convolutions again.",
    "convolution family", parameters=2,
)  # fmt: skip
_say(
    "Windows",
    "each window passes its gradient back to the elements that made its result",
    "Each element of {out} is made from a few elements of {of}: the largest one of a window, or an average with fixed weights. The "
    "gradient goes back to the same elements with the same weights; where windows overlap the parts are added.",
    "pooling family", "resampling family", first_only=True,
)  # fmt: skip
_say(
    "Loss",
    "the slope of the loss at each prediction, spread over what was averaged",
    "{out} has a term for each element or each example of {of}. Each gets the slope of its own term; where the terms are averaged, "
    "it is divided by their number, so that the gradient does not grow with the batch.",
    "losses family", "class_losses family", "margin_losses family",
)  # fmt: skip
_say(
    "Length",
    "a length grows in the direction in which the value points",
    "{out} is a length, or is made of lengths. Moving {of} changes a length most along the direction in which the value, or the "
    "difference, already points; the gradient goes that way, divided by the length.",
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
