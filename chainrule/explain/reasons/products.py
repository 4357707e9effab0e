"""Matrix products and every other contraction, from the element-wise view: which indices are summed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import fx

from chainrule.explain.local import LocalStep
from chainrule.explain.reasons import generic
from chainrule.explain.reasons.book import Reason, reason
from chainrule.explain.step import Paragraph
from chainrule.show.mathematics import text
from chainrule.show.mathematics.term import Term, add, element, equation, number, partial, scale, summed


@dataclass(frozen=True)
class Contraction:
    """The indices of the operands and of the result; an index that the result has not is summed over."""

    operands: tuple[tuple[fx.Node, str], ...]
    out: str
    bias: tuple[fx.Node, str] | None = None


def _matmul(node: fx.Node) -> Contraction | None:
    a, b = (n for n in node.args[:2] if isinstance(n, fx.Node))
    left, right = a.meta["val"].ndim, b.meta["val"].ndim
    batch = "bcdefgh"[: max(left, right) - 2] if max(left, right) > 2 else ""
    first = {1: "j", 2: "ij"}.get(left, batch[len(batch) - (left - 2) :] + "ij")
    second = {1: "j", 2: "jk"}.get(right, batch[len(batch) - (right - 2) :] + "jk")
    return Contraction(((a, first), (b, second)), batch + "i" * (left > 1) + "k" * (right > 1))


def _linear(node: fx.Node) -> Contraction | None:
    given = {"input": 0, "weight": 1, "bias": 2}
    found = [node.kwargs.get(k, node.args[i] if i < len(node.args) else None) for k, i in given.items()]
    x, weight, bias = found
    if not isinstance(x, fx.Node) or not isinstance(weight, fx.Node) or weight.meta["val"].ndim != 2:
        return None
    batch = "bcdefgh"[: x.meta["val"].ndim - 2] + "i" * (x.meta["val"].ndim > 1)
    return Contraction(
        ((x, batch + "j"), (weight, "kj")), batch + "k", (bias, "k") if isinstance(bias, fx.Node) else None
    )


def _einsum(node: fx.Node) -> Contraction | None:
    equation_, *operands = node.args
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    if not isinstance(equation_, str) or "." in equation_ or "->" not in equation_:
        return None
    indices, out = equation_.replace(" ", "").split("->")
    pairs = tuple(zip(operands, indices.split(","), strict=True))
    return Contraction(pairs, out) if all(isinstance(n, fx.Node) for n, _ in pairs) else None  # type: ignore[arg-type]


def _vectors(first: str, second: str, out: str) -> Callable[[fx.Node], Contraction | None]:
    def read(node: fx.Node) -> Contraction | None:
        a, b = node.args[:2]
        return Contraction(((a, first), (b, second)), out)  # type: ignore[arg-type]

    return read


_READ: dict[str, Callable[[fx.Node], Contraction | None]] = {
    "matmul": _matmul, "mm": _matmul, "bmm": _matmul, "mv": _matmul, "dot": _vectors("j", "j", ""),
    "outer": _vectors("i", "k", "ik"), "linear": _linear, "einsum": _einsum,
}  # fmt: skip


@reason(*_READ)
def contraction(step: LocalStep) -> Reason | None:
    try:
        found = _READ[step.operation](step.node)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a spelling of the call that is not read here
    if found is None:
        return None
    if found.bias is not None and step.read is found.bias[0]:
        return _bias(step, found)
    mine = [i for i, (node, _) in enumerate(found.operands) if node is step.read]
    terms = {node: term for term, node in step.arguments}
    if len(mine) != 1 or not _sizes_agree(found) or any(node not in terms for node, _ in found.operands):
        return None
    own = found.operands[mine[0]][1]
    others = [(terms[node], indices) for i, (node, indices) in enumerate(found.operands) if i != mine[0]]
    return Reason(_sentence(step, own, others, found), tuple(_paragraphs(step, own, others, found, terms)))


def _sizes_agree(found: Contraction) -> bool:
    """Whether each index has one size, and stands once in each operand."""
    sizes: dict[str, int] = {}
    for node, indices in found.operands:
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
    same = generic.listed([c for c in own if c in found.out])
    yield Paragraph(
        (("Only the elements of ", step.out, f" with the same {same} depend on ") if same else ("All of ", step.out, " depends on "))
        + (element(step.of, own), ", with the slope"), "",
        equation(partial(element(step.out, found.out), element(step.of, own)), slope),
    )  # fmt: skip
    yield generic.jacobian(step, "Most of them are zero." if same else "")
    over = _over(own, others, found)
    back = summed(over, side_by_side([element(step.upstream, found.out), *factors]))
    yield Paragraph(
        (_sum_over(step, over, own),),
        "Why the sum over the batch" if _meets_every_row(step, over) else "Chain rule",
        equation(element(step.result, own), back),
    )
    if len(others) == 1:
        yield from _transpose(own, *others[0], over, found)
    yield generic.passed_back(step)


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


def _meets_every_row(step: LocalStep, over: str) -> bool:
    """Whether the same numbers are used for every row of a batch."""
    return step.operation != "einsum" and "i" in over


def _sum_over(step: LocalStep, over: str, own: str) -> str:
    if not over:
        return "No index is left to sum over:"
    why = f"every {generic.listed(list(over))} of the result was computed from this element"
    if _meets_every_row(step, over):
        why = f"the same {text(step.of)} meets every row i, every example of a batch, and each of them passes a share back"
    return f"The shares of all the elements that it reaches are added: {why}. The sum goes over {generic.listed(list(over))}:"


def _transpose(own: str, other: Term, indices: str, over: str, found: Contraction) -> Iterator[Paragraph]:
    """Why the other operand is transposed: where the index of the sum stands."""
    if len(over) != 1 or len(own) < 2 or len(indices) < 2 or len(found.out) < 2:
        return
    if over == indices[-1] == found.out[-1]:
        where, so = "last", "must be turned round"
    elif over == indices[-2] == found.out[-2]:
        where, so = "first", "goes to the left and must be turned round"
    else:
        return
    yield Paragraph(
        ("In the gradient and in ", other, f" the index of the sum, {over}, stands {where}. A matrix product sums the last "
         "index of its left factor against the first one of its right factor, so ", other, f" {so}: that is the transpose, and "
         "in no other way do the shapes fit."), "Why the transpose",
    )  # fmt: skip


def _sentence(step: LocalStep, own: str, others: list[tuple[Term, str]], found: Contraction) -> str:
    over = _over(own, others, found)
    if not others:
        return "the elements of the gradient go back to where they came from"
    other = " and ".join(text(term) for term, _ in others)
    if _meets_every_row(step, over) and len(own) > 1:
        return f"every row of {other} meets the same {text(step.of)}: the sum over the rows, hence {other} transposed"
    if over and len(own) > 1:
        return f"each element reaches a whole row through {other}: back through {other} transposed"
    return f"times {other}{', summed over all that it reached' if over else ''}"


def _bias(step: LocalStep, found: Contraction) -> Reason:
    over = "".join(c for c in found.out if c not in "k")
    shares = summed(over, element(step.upstream, found.out))
    paragraph = Paragraph(
        ("Every row adds the same ", step.of, ", so each of its elements gets the sum of what all the rows pass back"),
        "Why the sum over the batch", equation(element(step.result, "k"), shares),
    )  # fmt: skip
    said = f"every row uses the same {text(step.of)}: the sum over the rows"
    return Reason(said, (paragraph, generic.passed_back(step)))
