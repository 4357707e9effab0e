"""Why a right hand-written line and the derived one are equal, where their forms differ: a closed list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from chainrule.diagnosis.identities import classes as identities_of_classes
from chainrule.diagnosis.identities import elements as identities_of_elements
from chainrule.diagnosis.identities import norms as identities_of_norms
from chainrule.diagnosis.identities import products as identities_of_products
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading.claim import Claim
from chainrule.diagnosis.reading.spots import Spot
from chainrule.diagnosis.truth.case import same
from chainrule.diagnosis.truth.equal_forms import Forms, Found, Points

IDENTITIES = {
    "one-step-softmax": "softmax and cross-entropy are differentiated in one step: the gradient of "
    "-log softmax(z)[y] is softmax(z) - onehot(y)",
    "one-step-sigmoid": "sigmoid and binary cross-entropy are differentiated in one step: the gradient of "
    "-y log s(z) - (1 - y) log(1 - s(z)) is s(z) - y",
    "softmax-in-one-step": "the softmax is differentiated in one step, not by parts: p * (g - (p * g).sum())",
    "softmax-jacobian": "the Jacobian of softmax as a matrix: (diag(p) - p p^T) g = p * (g - (p * g).sum())",
    "norm-in-one-step": "the compact formula of a norm is the sum of its paths, direct, through the mean and through "
    "the variance: (g - g.mean() - xhat * (g * xhat).mean()) / std",
    "rms-norm-in-one-step": "the compact formula of an RMS norm is the sum of its two paths, direct and through the "
    "mean square: (g - xhat * (g * xhat).mean()) / rms",
    "centred-sum": "a path that gives zero is left out: the deviations from the mean sum to zero, sum(x - mean) = 0",
    "mask-of-output": "the mask of the output of relu is that of its input: relu(z) > 0 exactly where z > 0",
    "mask-form": "a mask can be multiplied by, or select: g * (z > 0) = torch.where(z > 0, g, 0) = "
    "g.masked_fill(z <= 0, 0)",
    "sigmoid-output": "the derivative of sigmoid is written from its output s: s * (1 - s)",
    "tanh-output": "the derivative of tanh is written from its output t: 1 - t**2",
    "tanh-input": "the derivative of tanh is written from its input: 1 / cosh(z)**2 = 1 - tanh(z)**2",
    "exp-output": "exp is its own derivative: with y = exp(z), the slope is y",
    "log-output": "the derivative of a logarithm is written from its output: with y = log(z), 1 / z = exp(-y)",
    "root-output": "the derivative of a square root is written from its output: with y = sqrt(z), 1 / (2 * y)",
    "reciprocal-output": "the derivative of a reciprocal is written from its output: with y = 1 / z, "
    "-1 / z**2 = -y**2",
    "power-output": "the derivative of a power is written from its output: with y = z**p, p * z**(p - 1) = p * y / z, "
    "and for p = -1/2 it is -y**3 / 2",
    "softplus-output": "the derivative of softplus is written from its output: with y = log(1 + exp(z)), "
    "sigmoid(z) = 1 - exp(-y)",
    "silu-output": "the derivative of silu is written from its output: with y = z * s(z), s + y * (1 - s)",
    "difference-of-squares": "a difference of squares is a product: 1 - t**2 = (1 - t) * (1 + t)",
    "multiplied-out": "a common factor is multiplied out: g * (1 - a) = g - g * a",
    "transposed-product": "the transpose of a product is the product of the transposes the other way round: "
    "(b.T @ a.T).T = a @ b",
    "einsum-product": 'an einsum with one summed index is a matrix product: einsum("bi,bj->ij", a, b) = a.T @ b',
    "einsum-sum": 'an einsum over two like operands is a sum of products: einsum("ij,ij->j", a, b) = (a * b).sum(0)',
    "einsum-axis-sum": 'an einsum of one operand is a sum over an axis: einsum("ij->j", a) = a.sum(0)',
    "einsum-elementwise": 'an einsum that sums nothing is a product with broadcasting: '
    'einsum("i,ij->ij", a, b) = a[:, None] * b',
    "broadcast-sum": "a product with broadcasting and a sum make a matrix product: "
    "(a[:, :, None] * b[:, None, :]).sum(0) = a.T @ b",
    "outer-products": "a sum of outer products over the rows is a matrix product: sum of outer(a[n], b[n]) = a.T @ b",
    "row-by-row": "a product row by row is a product of matrices: stack of (w @ row) = a @ w.T",
    "ones-product": "a product with ones is a sum: ones @ a = a.sum(0)",
    "diagonal-of-product": "the diagonal of a product is a sum of products: diag(a.T @ b) = (a * b).sum(0)",
    "dot-product": "a dot product is a sum of products: dot(a, b) = (a * b).sum()",
    "block-product": "a product of joined matrices is the sum of the products: cat([a, b], 1) @ cat([c, d]) = "
    "a @ c + b @ d",
    "transposed-sum": "a sum over the columns of the transpose is a sum over the rows: a.T.sum(1) = a.sum(0)",
    "one-hot-product": "a product with one-hot rows adds rows by index: one_hot(i).T @ g = "
    "zeros.index_add(0, i, g)",
    "scale-of-product": "a number can be taken out of a product or a sum: (c * a) @ b = c * (a @ b)",
}  # fmt: skip

LARGEST = 3000  # nodes; beyond it the search for equal values would be felt
MOST = 2  # identities for one gradient

_CONTAINED = {"centred-sum": "norm-in-one-step"}  # what is part of another identity

Rule = Callable[[Forms], Iterator[Found]]
RULES: list[Rule] = [
    *identities_of_norms.RULES, *identities_of_classes.RULES, *identities_of_products.RULES,
    *identities_of_elements.RULES,
]  # fmt: skip


def identities(located: Located) -> list[str]:
    """For every right gradient whose form differs from the derived one, the identity that makes them equal.

    Each is told by structure (both forms contain what the identity is about) and by numbers (both have the same
    values, at the recorded inputs and at others). Nothing is said where no identity of the list is found.

    >>> from chainrule.diagnosis.truth.case import Case
    >>> from chainrule.diagnosis.reading.handwritten import Asked
    >>> from chainrule.diagnosis.reading.running import run_handwritten
    >>> x, w = torch.randn(5, 3), torch.randn(3)
    >>> def step(x):
    ...     y = (x * w).sum(1).tanh()
    ...     loss = y.sum()
    ...     w.g = (1 - y) * (1 + y) @ x
    >>> notes = identities(Located(Case(run_handwritten(Asked(step, (x,), {})))))
    >>> notes[0].split("): ")[1]
    'a difference of squares is a product: 1 - t**2 = (1 - t) * (1 + t)'
    """
    case = located.case
    if len(case.graph.nodes) > LARGEST:
        return []
    points = Points(case)
    places: dict[str, dict[str, list[str]]] = {}
    with torch.no_grad():
        known = _right(located, points)
        for claim in known:
            for slug, node in _found(Forms(claim, known, points)):
                spot: Spot | None = node.meta.get("spot") or claim.spot
                place = f" ({Path(spot.file).name}:{spot.line})" if spot is not None else ""
                places.setdefault(slug, {}).setdefault(place, []).append(claim.target)
    return [f"{_said(where)}: {IDENTITIES[slug]}" for slug, where in places.items()]


def _said(where: dict[str, list[str]]) -> str:
    return ", ".join(", ".join(dict.fromkeys(targets)) + place for place, targets in where.items())


def _right(located: Located, points: Points) -> list[Claim]:
    """The claims that are right, and the values on the way that are gradients by their names and numbers."""
    case = located.case
    explicit = [c for c in case.claims if located.rows[c].status == "right"]
    on_the_way = [c for c in case.guessed if c.node not in {e.node for e in explicit}]
    here = points.here
    return [
        c for c in [*explicit, *on_the_way]
        if c.value in case.base.gradients and c.node not in case.forward and same(here.values.get(c.node), here.truth(c.value))
    ]  # fmt: skip


def _found(forms: Forms) -> list[Found]:
    found: dict[str, Found] = {}
    for rule in RULES:
        for slug, node in _applied(rule, forms):
            if slug not in found and not (slug in _CONTAINED and _CONTAINED[slug] in found):
                found[slug] = slug, node
            if len(found) == MOST:
                return list(found.values())
    return list(found.values())


def _applied(rule: Rule, forms: Forms) -> list[Found]:
    """What a rule finds; nothing where a call has its arguments where the rule does not expect them."""
    try:
        return list(rule(forms))
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError):
        return []
