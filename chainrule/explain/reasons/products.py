"""Matrix products and every other contraction, from the element-wise view: which indices are summed over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics import text
from chainrule.show.mathematics.term import Term, add, element, equation, letter, number, partial, scale, summed


@dataclass(frozen=True)
class Contraction:
    """The indices of the operands and of the result; an index that the result has not is summed over."""

    operands: tuple[tuple[fx.Node, str], ...]
    out: str
    bias: tuple[fx.Node, str] | None = None


def _matmul(given: list[Any]) -> Contraction | None:
    a, b = given[:2]
    left, right = a.meta["val"].ndim, b.meta["val"].ndim
    batch = "bcdefgh"[: max(left, right, 2) - 2]
    first = {1: "j", 2: "ij"}.get(left, batch[len(batch) - (left - 2) :] + "ij")
    second = {1: "j", 2: "jk"}.get(right, batch[len(batch) - (right - 2) :] + "jk")
    return Contraction(((a, first), (b, second)), batch + "i" * (left > 1) + "k" * (right > 1))


def _linear(given: list[Any]) -> Contraction | None:
    x, weight, bias = [*given, None][:3]
    if weight.meta["val"].ndim != 2 or (bias is not None and bias.meta["val"].shape != weight.meta["val"].shape[:1]):
        return None
    batch = "bcdefgh"[: max(x.meta["val"].ndim, 2) - 2] + "i" * (x.meta["val"].ndim > 1)
    operands = ((x, batch + "j"), (weight, "kj"))
    return Contraction(operands, batch + "k", (bias, "k") if isinstance(bias, fx.Node) else None)


def _einsum(given: list[Any]) -> Contraction | None:
    equation_, *operands = given
    while len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    if not isinstance(equation_, str) or "." in equation_ or "->" not in equation_:
        return None
    indices, out = equation_.replace(" ", "").split("->")
    return Contraction(tuple(zip(operands, indices.split(","), strict=True)), out)


def _vectors(first: str, second: str, out: str) -> Callable[[list[Any]], Contraction | None]:
    return lambda given: Contraction(((given[0], first), (given[1], second)), out)


_READ: dict[str, Callable[[list[Any]], Contraction | None]] = {
    "matmul": _matmul, "mm": _matmul, "bmm": _matmul, "mv": _matmul, "dot": _vectors("j", "j", ""),
    "outer": _vectors("i", "k", "ik"), "linear": _linear, "einsum": _einsum,
}  # fmt: skip


@reason(*_READ)
def contraction(step: LocalStep) -> Reason | None:
    found = _READ[step.operation](list(step.given.values()))
    if found is None:
        return None
    terms = {node: term for term, node in step.arguments}
    taken = {
        t.text for term in (step.out, step.of, *terms.values()) for t in term.walk() if t.sign in ("name", "gradient")
    }
    found = _relettered(found, taken)
    if found.bias is not None and step.read is found.bias[0]:
        return _bias(step, found.out, found.bias[1])
    mine = [i for i, (node, _) in enumerate(found.operands) if node is step.read]
    if len(mine) != 1 or not _sizes_agree(found) or any(node not in terms for node, _ in found.operands):
        return None
    own = found.operands[mine[0]][1]
    others = [(terms[node], indices) for i, (node, indices) in enumerate(found.operands) if i != mine[0]]
    return Reason(_sentence(step, own, others, found), tuple(_paragraphs(step, own, others, found, terms)))


def _relettered(found: Contraction, taken: set[str]) -> Contraction:
    """With other letters for the indices that are also names of values."""
    used = {c for _, indices in found.operands for c in indices}
    free = iter(c for c in "mnprstuvijkl" if c not in taken | used)
    change = str.maketrans({c: next(free) for c in sorted(used & taken)})
    operands = tuple((node, indices.translate(change)) for node, indices in found.operands)
    bias = (found.bias[0], found.bias[1].translate(change)) if found.bias is not None else None
    return Contraction(operands, found.out.translate(change), bias)


def _sizes_agree(found: Contraction) -> bool:
    """Whether each index has one size, and stands once in each operand."""
    sizes: dict[str, int] = {}
    for node, indices in found.operands:
        if len(indices) != node.meta["val"].ndim:
            return False
        for index, size in zip(indices, node.meta["val"].shape, strict=True):
            if sizes.setdefault(index, size) != size:
                return False
    return all(len(set(indices)) == len(indices) for _, indices in found.operands)


def _paragraphs(
    step: LocalStep, own: str, others: list[tuple[Term, str]], found: Contraction, terms: dict[fx.Node, Term]
) -> Iterator[Paragraph]:
    inner = _missing("".join(indices for _, indices in found.operands), found.out)
    body = summed(inner, side_by_side([element(terms[node], indices) for node, indices in found.operands]))
    if found.bias is not None and found.bias[0] in terms:
        body = add(body, element(terms[found.bias[0]], found.bias[1]))
    yield Paragraph(("One element of ", step.out, " is"), "Elements", equation(element(step.out, found.out), body))
    factors = [element(term, indices) for term, indices in others]
    besides = _missing("".join(indices for _, indices in others), found.out + own)
    slope = summed(besides, side_by_side(factors)) if factors else number(1)
    shared = [c for c in own if c in found.out]
    fixed = ", the other operands held fixed" if step.readers > 1 else ""
    yield Paragraph(
        (("Only the elements of ", step.out, " with the same ", *_letters(shared), " depend on ") if shared
         else ("All of ", step.out, " depends on "))
        + (element(step.of, own), f" here{fixed}, with the slope"), "",
        equation(partial(element(step.out, found.out), element(step.of, own)), slope),
    )  # fmt: skip
    yield generic.jacobian(step, _zeros(math.prod(_size(found, c) for c in shared)))
    over = _over(own, others, found)
    back = summed(over, side_by_side([element(step.upstream, found.out), *factors]))
    title = "Why the sum over the rows" if _rows(step, own, found) else "Chain rule"
    yield Paragraph(_sum_over(step, own, others, found), title, equation(element(step.result, own), back))
    yield from _transpose(step, others)
    yield generic.passed_back(step)


def _size(found: Contraction, index: str) -> int:
    return next(n.meta["val"].shape[i.index(index)] for n, i in found.operands if index in i)


def _zeros(blocks: int) -> str:
    """How many of the entries of the Jacobian are zero, where an element reaches one in so many of the results."""
    return "" if blocks < 2 else "Half of them are zero." if blocks == 2 else "Most of them are zero."


def _missing(indices: str, among: str) -> str:
    """Those of `indices` that are not `among` the others, each once."""
    return "".join(dict.fromkeys(c for c in indices if c not in among))


def _over(own: str, others: list[tuple[Term, str]], found: Contraction) -> str:
    """The indices that the gradient sums over."""
    return _missing(found.out + "".join(indices for _, indices in others), own)


def side_by_side(factors: list[Term]) -> Term:
    """Numbers side by side."""
    total = factors[0]
    for factor in factors[1:]:
        total = scale(total, factor)
    return total


def _rows(step: LocalStep, own: str, found: Contraction) -> str:
    """The index of the rows that a matrix meets, all of them; "" where it is a row itself, or no matrix."""
    rows = found.operands[0][1]
    meets = step.operation != "einsum" and step.read is found.operands[1][0] and len(own) == 2 and len(rows) == 2
    return rows[0] if meets else ""


def _sum_over(step: LocalStep, own: str, others: list[tuple[Term, str]], found: Contraction) -> tuple[str | Term, ...]:
    over = _over(own, others, found)
    if not over:
        return ("No index is left to sum over:",)
    if _rows(step, own, found):
        return (
            "The same ", step.of, " meets every row ", letter(over), " of ", others[0][0], ", and each row passes a share back; the "
            "shares are added. Where the rows are the examples of a batch, this is the sum over the batch:",
        )  # fmt: skip
    return ("The element reaches the result at every ", *_letters(over), ", and what comes back from there is added:")


def _letters(indices: Sequence[str]) -> Iterator[str | Term]:
    """The indices one by one, as they stand in a sentence."""
    for i, index in enumerate(indices):
        if i:
            yield " and " if i == len(indices) - 1 else ", "
        yield letter(index)


def _transpose(step: LocalStep, others: list[tuple[Term, str]]) -> Iterator[Paragraph]:
    """Why something is transposed, where the step transposes something: what it is, and on which side it stands."""
    if len(others) != 1 or (turned := _turned(step, others[0][0])) is None:
        return
    other, node = others[0][0], next(n for t, n in step.arguments if t == others[0][0])
    rows, columns = (step.out_shape if turned == step.upstream else tuple(node.meta["val"].shape))[-2:]
    yield Paragraph(
        ("A matrix product sums the last index of its left factor against the last but one of its right factor. In the gradient "
         "and in ", other, " the index of the sum does not stand so, and turning ", turned, " round, its transpose, brings it "
         "there. ", "It is square here, so the shapes would not show it if the transpose were forgotten." if rows == columns
         else "The shapes tell as well: without the transpose they would not fit."), "Why the transpose",
    )  # fmt: skip


def _turned(step: LocalStep, other: Term) -> Term | None:
    """What the step's formula transposes: the other operand, or the gradient; None where it is neither."""
    inside = [t.parts[0] for share in step.shares for t in share.walk() if t.sign == "transpose"]
    for candidate in (other, step.upstream):
        if any(candidate in t.walk() for t in inside):
            return candidate
    return None


def _sentence(step: LocalStep, own: str, others: list[tuple[Term, str]], found: Contraction) -> str:
    over = _over(own, others, found)
    if not others:
        return "the elements of the gradient go back to where they came from"
    other = " and ".join(text(term) for term, _ in others)
    turned = _turned(step, others[0][0]) if len(others) == 1 else None
    if _rows(step, own, found):
        what = {step.upstream: ", hence the gradient transposed", others[0][0]: f", hence {other} transposed"}
        return f"every row of {other} meets the same {text(step.of)}: the sum over the rows" + what.get(
            turned or number(0), ""
        )
    if over and len(own) > 1:
        back = f"{other} transposed" if turned == others[0][0] else other
        return f"each element reaches a whole row through {other}: back through {back}"
    return f"times {other}{', summed over all that it reached' if over else ''}"


def _bias(step: LocalStep, out: str, own: str) -> Reason:
    shares = summed(_missing(out, own), element(step.upstream, out))
    paragraph = Paragraph(
        ("Every row adds the same ", step.of, ", so each of its elements gets the sum of what all the rows pass back. Where the "
         "rows are the examples of a batch, this is the sum over the batch:"),
        "Why the sum over the rows", equation(element(step.result, own), shares),
    )  # fmt: skip
    said = f"every row uses the same {text(step.of)}: the sum over the rows"
    return Reason(said, (paragraph, generic.passed_back(step)))
