"""Operations that move elements and change none: the gradient makes the same way back."""

from __future__ import annotations

import math

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.step import Paragraph

_REPEATING = (
    "expand",
    "expand_as",
    "broadcast_to",
    "repeat",
    "tile",
    "repeat_interleave",
    "meshgrid",
    "broadcast_tensors",
)
_ONES = "Each row has a single one, all else is zero."


@reason("shaping family", "diagonals family", "flip", "roll", "atleast_1d", "atleast_2d", "atleast_3d",
        "mH", "H", "adjoint", "view_as_real", "view_as_complex")  # fmt: skip
def moved(step: LocalStep) -> Reason:
    smaller = math.prod(step.out_shape) < math.prod(step.shape)
    paragraph = Paragraph(
        (step.out, " holds the elements of ", step.of, " in another place or shape; no number changes. The gradient of each "
         "element goes back to where the element came from"
         + (", and elements that were left out get zero, for the loss does not see them" if smaller else ""),), "Way back",
    )  # fmt: skip
    return Reason("elements were moved, not changed: the way back",
                  (paragraph, generic.passed_back(step)), minor=True)  # fmt: skip


@reason(*_REPEATING)
def repeated(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("Each element of ", step.of, f" is repeated, ({step.shape} becomes {step.out_shape}), and each copy passes a gradient "
         "back; the element gets their sum"), "Copies",
    )  # fmt: skip
    return Reason(
        "each copy of an element passes a gradient back, and they are summed", (paragraph, generic.passed_back(step))
    )


@reason("getitem", "select", "narrow", "index_select", "gather", "take", "take_along_dim", "masked_select", "indexing family",
        "embedding family")  # fmt: skip
def picked(step: LocalStep) -> Reason | None:
    views = all(not hasattr(i, "meta") for i in step.node.args[1:]) and step.operation == "getitem"
    if views and math.prod(step.shape) == math.prod(step.out_shape):
        return moved(step)
    repeats = "" if views else (
        " An element that was picked several times is one number used several times: the gradients of all its uses are "
        "added, which is why the way back adds into zeros and does not overwrite."
    )  # fmt: skip
    paragraph = Paragraph(
        (step.out, " is a selection of the elements of ", step.of, ". Each picked element gets the gradient of the place it "
         f"was put in; those that were not picked get zero from this step.{repeats}"), "Selection",
    )  # fmt: skip
    said = "the picked elements get the gradient, the others zero"
    return Reason(said, (paragraph, generic.jacobian(step, _ONES), generic.passed_back(step)))


@reason("joining family", "cat", "stack")
def joined(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        (step.of, " is one piece of ", step.out, ", so it gets that piece of the gradient",), "Piece",
    )  # fmt: skip
    return Reason("each piece gets its own piece of the gradient", (paragraph, generic.passed_back(step)))


_SPLITTING = ("split", "split_with_sizes", "unsafe_split_with_sizes", "chunk", "tensor_split", "hsplit", "vsplit", "dsplit",
              "unbind")  # fmt: skip


@reason(*_SPLITTING)
def split(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        (step.of, " is cut into pieces; its gradient is made of the gradients of the pieces, put back side by side, with zeros for "
         "the pieces that the loss does not see"), "Pieces",
    )  # fmt: skip
    return Reason("the gradients of the pieces, put back side by side", (paragraph, generic.passed_back(step)))


@reason("windows family")
def windows(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("An element of ", step.of, " may lie in several windows of ", step.out, "; it gets the sum of what comes back from each "
         "place that it was copied to"), "Windows",
    )  # fmt: skip
    return Reason(
        "an element gets the sum of what comes back from all its windows", (paragraph, generic.passed_back(step))
    )


@reason("padding family")
def padded(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        (step.out, " is ", step.of, " with a border. Each element gets the gradient of its place, and of the border's places that "
         "were filled with it, where the border repeats the value; places with a constant pass nothing back"), "Border",
    )  # fmt: skip
    return Reason(
        "each element gets the gradient of the places that it was put in", (paragraph, generic.passed_back(step))
    )


@reason("tril", "triu")
def kept_triangle(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("One triangle of ", step.of, " was kept and the other one set to zero; so is its gradient"), "Triangle"
    )
    return Reason("the same triangle of the gradient is kept", (paragraph, generic.passed_back(step)))


@reason("index_add", "scatter_add", "scatter_reduce", "index_reduce", "segment_reduce", "embedding_bag")
def collected(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("Several values were put together in one place of ", step.out, "; each of them gets the gradient of its place, with the "
         "weight that it had there"), "Collecting",
    )  # fmt: skip
    return Reason("each value gets the gradient of the place it was put in", (paragraph, generic.passed_back(step)))


@reason("scattering family")
def scattered(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("Some places of ", step.out, " hold what was written there, the others what was there before. The gradient of a place "
         "goes to the value that it holds",), "Writing",
    )  # fmt: skip
    return Reason(
        "the gradient of each place goes to the value that was written there", (paragraph, generic.passed_back(step))
    )


@reason("where", "masked_fill", "maximum", "minimum", "fmax", "fmin", "selections family")
def selected(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("At each place ", step.out, " is one of the operands, and moves with that one alone. So the gradient of a place goes "
         "to the operand that was chosen there, and the others get zero",), "Choice",
    )  # fmt: skip
    kink = [Paragraph((f"By convention, {step.note}.",), "Ties")] if step.note else []
    return Reason("goes to the operand that was chosen at each place",
                  (paragraph, generic.passed_back(step), *generic.broadcasting(step), *kink))  # fmt: skip


@reason("random family")
def drawn(step: LocalStep) -> Reason:
    paragraph = Paragraph(
        ("The random numbers that were drawn forward are constants backward: what was dropped stays dropped, and what was "
         "scaled is scaled by the same numbers",), "Drawn numbers",
    )  # fmt: skip
    return Reason("the mask that was drawn forward is applied to the gradient", (paragraph, generic.passed_back(step)))
