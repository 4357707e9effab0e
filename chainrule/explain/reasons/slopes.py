"""The factor by which an elementwise step multiplies the gradient, read off the step's own formula."""

from __future__ import annotations

from dataclasses import replace

from chainrule.explain.local import LocalStep
from chainrule.show.mathematics.term import Term, element, number, scale

_PRODUCTS = ("hadamard", "dot", "scale")


def slope(share: Term, upstream: Term) -> Term | None:
    """What `share` multiplies the upstream gradient by; None where it is not a factor.

    >>> from chainrule.show.mathematics import text
    >>> from chainrule.show.mathematics.term import gradient, hadamard, name
    >>> text(slope(hadamard(gradient("out"), name("b")), gradient("out")))
    'b'
    """
    if share == upstream:
        return number(1)
    if share.sign in _PRODUCTS and upstream in (left := share.parts)[:1]:
        return left[1]
    if share.sign in (*_PRODUCTS, "div", "neg", "parens"):
        first = slope(share.parts[0], upstream)
        if first is not None:
            if share.sign == "parens":
                return first
            if first == number(1) and share.sign in _PRODUCTS:
                return share.parts[1]
            if first.sign == "number" and share.sign in _PRODUCTS:
                return scale(first, share.parts[1])  # two numbers, or a number and a value
            return Term(share.sign, (first, *share.parts[1:]))
        second = slope(share.parts[1], upstream) if share.sign in _PRODUCTS else None
        if second is not None:
            return share.parts[0] if second == number(1) else Term(share.sign, (share.parts[0], second))
    if share.sign == "over" and share.text == "Σ" and len(share.parts) == 1:
        return slope(share.parts[0], upstream)  # the sum of broadcasting, which is told apart
    if share.sign == "cases":
        kept = [slope(p, upstream) for p in (share.parts[0], share.parts[2])]
        value, otherwise = (
            k if k is not None else p for k, p in zip(kept, (share.parts[0], share.parts[2]), strict=True)
        )
        return None if kept == [None, None] else Term("cases", (value, share.parts[1], otherwise))
    return None


def at_place(term: Term, step: LocalStep, indices: str) -> Term:
    """`term` at one place: the values in it that have the shape of the result, with indices."""
    full = {t.text for t, n in step.arguments if tuple(n.meta["val"].shape) == step.out_shape} | {step.out.text}
    if term.sign == "name" and term.text in full:
        return element(term, indices)
    return replace(term, parts=tuple(at_place(p, step, indices) for p in term.parts))
