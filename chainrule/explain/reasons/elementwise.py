"""Elementwise operations: each element of the result depends on one element of each operand."""

from __future__ import annotations

import torch

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.reasons.slopes import MINUS_ONE, at_place, place, slope
from chainrule.explain.shapes import stretched
from chainrule.explain.step import Paragraph
from chainrule.run import step as run_step
from chainrule.show.mathematics import Term, text
from chainrule.show.mathematics.notation import bare
from chainrule.show.mathematics.term import element, equation, hadamard, number, partial, scale


def diagonal(step: LocalStep) -> str:
    """What is special about the Jacobian."""
    return "" if stretched(step.shape, step.out_shape) else "It is diagonal: off the diagonal there are only zeros."


@reason(
    "elementwise",
    "elementary family",
    "special family",
    "real",
    "imag",
    "conj",
    "conj_physical",
    "complex",
    "polar",
    "angle",
    "sgn",
)
def elementwise(step: LocalStep) -> Reason | None:
    paragraphs = _slopes(step)
    if step.note:
        paragraphs.append(Paragraph((f"By convention, {step.note}.",), "Kink"))
    said = f"times the slope of {_called(step)} at each place"
    return Reason(said, tuple(paragraphs))


def _slopes(step: LocalStep) -> list[Paragraph]:
    """That the elements do not mix, the slope of one, and what follows."""
    factors = [f for share in step.shares if (f := slope(share, step.upstream)) is not None]
    paragraphs = []
    if len(factors) == len(step.shares) == 1 and len(step.out_shape) < 7:
        above = element(step.out, place(step.out_shape, step.out_shape))
        below = element(step.of, place(step.shape, step.out_shape))
        said = (
            " and on no other, with the slope"
            if stretched(step.shape, step.out_shape)
            else " at the same place, with the slope",
        )
        paragraphs.append(
            Paragraph(("Each element of ", step.out, " depends directly on " if step.readers > 1 else " depends on ", "one" if stretched(step.shape, step.out_shape) else "the", " element of ", step.of, *said), "Slope",
                      equation(partial(above, below), bare(at_place(factors[0], step))))
        )  # fmt: skip
    return [
        *paragraphs, generic.jacobian(step, diagonal(step)), generic.passed_back(step), *generic.broadcasting(step),
    ]  # fmt: skip


def _called(step: LocalStep) -> str:
    return {"pow": "the power", "square": "the square", "exp": "exp", "sqrt": "the root"}.get(
        step.operation, step.operation
    )


@reason("add", "sub")
def added_or_subtracted(step: LocalStep) -> Reason | None:
    factors = [slope(share, step.upstream) for share in step.shares]
    minus = all(f == MINUS_ONE for f in factors)
    if not minus and any(f != number(1) for f in factors):
        return elementwise(step)  # torch.add(a, b, alpha=2)
    went = " falls" if minus else " moves"
    passed = "the gradient is passed on with the other sign" if minus else "the gradient is passed on as it is"
    moved = (step.out, f"{went} by as much as ", step.of, f" {'rises' if minus else 'does'}")
    axes = stretched(step.shape, step.out_shape)
    if not axes:
        result = equation(step.result, Term("neg", (step.upstream,)) if minus else step.upstream)
        said = "subtracted, so the sign turns" if minus else "a sum passes the gradient on unchanged"
        shown = result if len(step.shares) == 1 and step.result != step.upstream else None
        return Reason(said, (Paragraph((*moved, f", so {passed}:"), "Sum", shown),), minor=not minus)
    own = text(step.of)
    said = (
        f"every row uses the same {own}: the sum over the rows" if axes == [0] else f"{own} was stretched: summed back"
    )
    first = Paragraph((*moved, f" at each place where it is used, so {passed} from each of them."), "Sum")
    return Reason(
        said,
        (
            first,
            generic.jacobian(step, "Its entries are ones and zeros." if not minus else ""),
            *generic.broadcasting(step),
            generic.passed_back(step),
        ),
    )


@reason("mul")
def multiplied(step: LocalStep) -> Reason | None:
    others = [term for term, _ in step.others]
    if len(step.shares) > 1:
        both = Paragraph((step.of, " is both factors of ", step.call, ", and each of them passes a share back; the shares are "
                          "added"), "Product")  # fmt: skip
        return Reason(
            "both factors are the same value, and each passes a share back", (both, generic.passed_back(step))
        )
    factor = others[0] if len(others) == 1 else slope(step.shares[0], step.upstream)
    if factor is None:
        return None
    product = scale(factor, step.upstream) if factor.sign == "number" else hadamard(step.upstream, factor)
    said = Paragraph(
        ("A change of ", step.of, " arrives in ", step.out, " multiplied by the other factor, ", factor,
         ", so the gradient goes back multiplied by it"), "Product", equation(step.result, product),
    )  # fmt: skip
    stretch = generic.broadcasting(step)
    if stretch:
        said = Paragraph(said.pieces, said.title)
    paragraphs = (said, *stretch, *([generic.passed_back(step)] if stretch else []))
    after = ", summed over what was stretched" if stretch else ""
    return Reason(f"times {text(factor)}{after}", paragraphs)


@reason("pow", "square")
def power(step: LocalStep) -> Reason | None:
    exponent = [*step.given.values(), 2][1]
    if isinstance(exponent, torch.fx.Node) or step.read is not step.first:
        return None
    kind = "a square" if exponent == 2 else f"the power {exponent}"
    return Reason(f"times the slope of {kind}", tuple(_slopes(step)))


@reason("relu", "clamp_min", "clamp_max", "clamp", "relu6", "hardtanh", "threshold")
def gate(step: LocalStep) -> Reason | None:
    """Functions that pass their argument on in one region and hold it fast in another."""
    if step.shape != step.out_shape or step.read is not step.first or len(step.shares) > 1:
        return None
    factor, i = slope(step.shares[0], step.upstream), place(step.shape, step.shape)
    said = Paragraph(
        ("Where the gate is open, ", step.out, " moves with ", step.of, " and the slope is 1. Where it is held at the bound, moving ",
         step.of, " a little changes nothing, and the slope is 0. So the gradient passes where the gate was open forward and "
         f"stops elsewhere; here {_open(step):.0%} of the elements pass. The numbers that ", step.upstream, " holds at the closed "
         "places are lost: they told how the loss would change with an output that cannot move."), f"What happens at {step.operation}",
        equation(partial(element(step.out, i), element(step.of, i)), at_place(factor, step)) if factor is not None else None,
    )  # fmt: skip
    kink = (
        [Paragraph((f"At the bound itself there is no slope; by convention, {step.note}.",), "Kink")]
        if step.note
        else []
    )
    return Reason(
        f"passes where {step.operation} let the value through, stops elsewhere",
        (said, generic.jacobian(step, diagonal(step)), generic.passed_back(step), *kink),
    )


def _open(step: LocalStep) -> float:
    """The share of the elements at which the slope is not zero."""
    given = step.read.meta["val"].detach().clone().requires_grad_()
    with torch.enable_grad():
        out = run_step(step.node, {n: n.meta["val"] for n in step.node.all_input_nodes} | {step.read: given})
        (slopes,) = torch.autograd.grad(out.sum(), given)
    return float((slopes != 0).double().mean()) if slopes.numel() else 0.0


@reason("div")
def divided(step: LocalStep) -> Reason | None:
    if len(step.shares) > 1:
        return None
    numerator = step.read is step.first
    said = "divided by the same number" if numerator else "a larger denominator makes the quotient smaller"
    return Reason(said, tuple(_slopes(step)))


@reason("neg")
def negated(step: LocalStep) -> Reason:
    turned = equation(step.result, Term("neg", (step.upstream,)))
    return Reason("the minus sign goes back as a minus sign", (Paragraph(("The sign turns.",), "Sign", turned),))
