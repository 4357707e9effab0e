"""The mistakes that people make in backward passes: a closed list, each with a name and a sentence."""

from __future__ import annotations

CAUSES = {
    "wrong-scale": "The gradient is the right one times a number: a mean for a sum, a forgotten or doubled batch "
    "size, a factor of 2, a missing 1/sqrt(d), N - 1 for N.",
    "sign": "The gradient is the right one with the opposite sign.",
    "transposed": "A matrix product with its operands swapped, or a transpose too many or too few.",
    "missing-broadcast-sum": "The value was stretched in the forward pass, so its gradient is summed over the axes "
    "along which it was stretched; the sum is missing.",
    "wrong-axis": "A sum, mean, softmax or index runs along another axis than in the forward pass.",
    "wrong-shape": "The right numbers in another shape: keepdim, an axis too many, a missing reshape.",
    "missing-factor": "A factor of the chain rule is missing: an activation's derivative, a mask, an operand of a "
    "product.",
    "wrong-factor": "A factor of the chain rule is another one than it should be.",
    "wrong-exponent": "A power or root is another one than in the derivative.",
    "double-applied": "A derivative is applied once more: softmax or sigmoid again after p - y, a mask or a scale "
    "twice.",
    "wrong-mask": "A mask is inverted, taken from the wrong value, or wrong at the boundary.",
    "wrong-tensor": "Another value than the right one is used: before for after the activation, q for k.",
    "lost-path": "The value is read in several places, and the gradient that comes back from one of them is missing: "
    "a residual, a tied weight, the mean or the variance of a norm, a regulariser.",
    "missing-term": "A term of the derivative is missing.",
    "double-counted-path": "The gradient that comes back along one path is added twice.",
    "wrong-term-scale": "One term of the sum has a wrong factor or sign; the others are right.",
    "overwritten-not-accumulated": "A second `=` replaces the gradient that another path left; it should be added.",
    "index-overwrite": "The index repeats, and writing through it keeps the last row only; the rows should be added.",
    "diagonal-jacobian": "An operation that mixes elements (softmax, a norm) is differentiated as if it were "
    "element-wise.",
    "upstream-dropped": "The local derivative alone: it is not multiplied by the gradient of the value above.",
    "stale-parameter": "A parameter was updated before the gradient was propagated through it.",
    "stale-gradient": "A gradient left over from an earlier run is used, or added to.",
    "inplace-corruption": "A value that the backward pass needs was changed in place after the forward pass used it.",
    "missing-gradient": "The gradient is never computed.",
    "ties": "Several elements are the largest (or smallest), and the gradient goes to others of them than it should.",
    "contract": "The numbers are right, but the torch.autograd.Function breaks a promise of its kind: it ignores "
    "needs_input_grad, fails on strided or empty inputs, or changes what it saved; or torch.library.opcheck fails for "
    "the registered operator.",
    "unknown": "None of the known mistakes gives these numbers; the message has the facts.",
}


def sentence_of(cause: str) -> str:
    """What a cause says first, within another sentence.

    >>> sentence_of("missing-gradient")
    'the gradient is never computed'
    """
    text = CAUSES[cause].split(";")[0].split(": ")[0].rstrip(".")
    return text[0].lower() + text[1:]
