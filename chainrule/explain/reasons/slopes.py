"""The factor by which an elementwise step multiplies the gradient, read off the step's own formula."""

from __future__ import annotations

from dataclasses import replace

from chainrule.explain.local import LocalStep
from chainrule.explain.shapes import stretched
from chainrule.show.mathematics.term import Term, element, fraction, hadamard, number, scale
from chainrule.show.python import PRODUCT

LETTERS = "ijklmnpqrst"  # of indices
_PRODUCTS = ("hadamard", "dot", "scale")


MINUS_ONE = Term("neg", (number(1),))


def slope(share: Term, upstream: Term) -> Term | None:
    """What `share` multiplies the upstream gradient by; None where it is not a factor.

    >>> from chainrule.show.mathematics import text
    >>> from chainrule.show.mathematics.term import gradient, hadamard, name
    >>> text(slope(hadamard(gradient("out"), name("b")), gradient("out")))
    'b'
    """
    if share == upstream:
        return number(1)
    if share.sign in ("parens", "neg"):
        inner = slope(share.parts[0], upstream)
        return inner if inner is None or share.sign == "parens" else _times(MINUS_ONE, inner)
    if share.sign in _PRODUCTS:
        left, right = (slope(part, upstream) for part in share.parts)
        if left is not None:
            return _times(left, share.parts[1])
        return None if right is None else _times(share.parts[0], right)
    if share.sign == "div":
        above = slope(share.parts[0], upstream)
        if above is not None and above.sign == "neg":
            return Term("neg", (fraction(above.parts[0], share.parts[1]),))
        return None if above is None else fraction(above, share.parts[1])
    if share.sign in ("over", "big") and share.text == "Σ" and len(share.parts) == 1:
        return slope(share.parts[0], upstream)  # the sum of broadcasting, which is told apart
    if share.sign == "cases":
        value, condition, otherwise = share.parts
        kept = slope(value, upstream), slope(otherwise, upstream)
        if kept == (None, None):
            return None
        return Term("cases", (kept[0] or value, condition, kept[1] or otherwise))
    return None


def _times(left: Term, right: Term) -> Term:
    """The product of two factors, with the sign and the number in front."""
    if left == number(1):
        return right
    if right == number(1):
        return left
    if left.sign == "neg":
        return Term("neg", (_times(left.parts[0], right).tight(PRODUCT),))
    if right.sign == "neg":
        return Term("neg", (_times(left, right.parts[0]).tight(PRODUCT),))
    if not left.names or not right.names:  # a number
        return scale(left, right) if not left.names else scale(right, left)
    return hadamard(left, right)


def place(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> str:
    """The indices of the element of a value of `shape` from which broadcasting makes the element ij... of a result.

    >>> place((4,), (3, 4)), place((3, 1), (3, 4)), place((3, 4), (3, 4))
    ('j', 'i0', 'ij')
    """
    letters, axes = LETTERS[: len(out_shape)], stretched(shape, out_shape)
    return "".join("0" if i in axes else letters[i] for i in range(len(out_shape) - len(shape), len(letters)))


def at_place(term: Term, step: LocalStep) -> Term:
    """`term` at one place of the result: the values in it with their indices."""
    if term.sign == "name":
        shapes = {t.text: tuple(n.meta["val"].shape) for t, n in step.arguments} | {step.out.text: step.out_shape}
        return element(term, place(shapes[term.text], step.out_shape)) if term.text in shapes else term
    sign = "scale" if term.sign == "hadamard" else term.sign  # elements are numbers
    return replace(term, sign=sign, parts=tuple(at_place(p, step) for p in term.parts))
