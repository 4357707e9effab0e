"""Explanations: what a step says in mathematics is computed and compared with what it gives."""

from __future__ import annotations

import pytest
import torch
from evaluated import NotComputed, holds, spread, value_of
from torch import Tensor
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.checking.examples import of_rule
from chainrule.explain import Explanation
from chainrule.rules import BOOK
from chainrule.run import needed, run
from chainrule.show.mathematics import Term, text


def explained(entry: Entry) -> Explanation:
    args = entry.arguments()
    output = entry(*args)
    return cr.derive(entry, *args, upstream=torch.randn_like(output) if output.ndim else None).explain()


def values(e: Explanation) -> dict[str, Tensor]:
    found = {step.targets[0]: step.value for step in e if len(step.targets) == 1}
    upstream = e.derivation.program.upstream
    return found if upstream is None else found | {"out_g": upstream.meta["val"]}


def computed(equation: Term, known: dict[str, Tensor]) -> bool | None:
    """Whether it holds; None where it is not computed."""
    try:
        return holds(equation, known)
    except NotComputed:
        return None


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_formulas_say_what_the_code_computes(entry: Entry) -> None:
    e = explained(entry)
    known = values(e)
    for step in e:
        if step.formula is not None:
            assert computed(step.formula, known) in (True, None), (step.code, text(step.formula))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_the_equations_of_derivations_hold(entry: Entry) -> None:
    e = explained(entry)
    known = values(e)
    for step in e:
        several = any(p.title == "Why gradients are added" for p in step.derivation)
        for paragraph in step.derivation:
            equation = paragraph.display
            if equation is None or equation.sign != "equation":
                continue
            own = set(equation.parts[0].names) & set(step.targets)
            if several and own and paragraph.title != "Together":
                continue  # the share of one path among several
            assert computed(equation, known) in (True, None), (step.code, str(paragraph))


@pytest.mark.parametrize("name", sorted(name for name, rule in BOOK.rules.items() if of_rule(rule) is not None))
def test_the_slopes_that_a_derivation_names_are_the_entries_of_the_jacobian(name: str) -> None:
    compare_slopes(name)


def test_slopes_are_compared() -> None:
    assert all(
        compare_slopes(name)
        for name in ("matmul", "linear", "exp", "sigmoid", "gelu", "relu", "softplus", "square", "asin")
    )


def compare_slopes(name: str) -> int:
    """Compare the slopes that the derivation of a rule's first sample names with its Jacobian; how many there were."""
    sample, compared = of_rule(BOOK.rules[name]), 0
    assert sample is not None
    d = sample.derive()
    e = d.explain()
    for paragraph in (p for step in e for p in step.derivation if p.display is not None):
        equation = paragraph.display
        if equation is None or equation.parts[0].sign != "partial":
            continue
        entries, slope = jacobian(d, *equation.parts[0].parts), value_of(equation.parts[1], values(e))
        if entries is None or slope is None:
            continue
        indices = "".join(t.text if t.sign == "element" else "" for t in equation.parts[0].parts)
        letters = "".join(dict.fromkeys(indices))
        found = torch.einsum(f"{indices}->{letters}", entries)
        assert torch.allclose(found, spread(slope, letters, found).to(found.dtype), rtol=1e-9, atol=1e-9), str(
            paragraph
        )
        assert torch.isclose(found.abs().sum(), entries.abs().sum()), f"there are other slopes: {paragraph}"
        compared += 1
    return compared


def jacobian(d: cr.Derivation, above: Term, below: Term) -> Tensor | None:
    """The derivative of one value of a program by an input, where both are named."""
    names = {d._names[n]: n for n in d.program.inputs}
    out, of = (t.parts[0] if t.sign == "element" else t for t in (above, below))
    if out.text != "out" or of.text not in names or out.sign != "name" or of.sign != "name":
        return None
    program, node = d.program, names[of.text]
    todo = needed([program.output])
    if (
        (value := node.meta["val"].detach()).dtype != torch.float64
        or not value.numel()
        or "0" in below.text + above.text
    ):
        return None

    def forward(x: Tensor) -> Tensor:
        given = {n: n.meta["val"] for n in program.inputs} | {node: x}
        return run(todo, given)[program.output]

    return torch.autograd.functional.jacobian(forward, value)


def test_most_formulas_are_computed_by_these_tests() -> None:
    found = [
        computed(step.formula, values(e)) is not None
        for entry in ENTRIES[::7]
        for e in [explained(entry)]
        for step in e
        if step.formula is not None
    ]
    assert sum(found) > 2 / 3 * len(found), f"{sum(found)} of {len(found)}"


def network(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, y: Tensor) -> Tensor:
    a = x @ w1 + b1
    h = a.relu()
    z = h + x
    out = z @ w2
    return ((out - y) ** 2).mean()


QUESTIONS = {
    "w1.g": "Why the transpose",
    "b1.g": "Why the sum over the batch",
    "out.g": "Why divide by N",
    "a.g": "What happens at relu",
    "x.g": "Why gradients are added",
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_learners_ask_most_is_answered_where_it_arises(name: str) -> None:
    shapes = ((5, 3), (3, 3), (3,), (3, 2), (5, 2))
    e = cr.derive(
        network, *(torch.randn(shape, dtype=torch.float64) for shape in shapes), wrt=["x", "w1", "b1", "w2"]
    ).explain()
    answers = {p.title: str(p) for p in e[name].derivation}
    assert len(answers[QUESTIONS[name]]) > 100


def test_reasons_hold_for_torch_s_own_spellings() -> None:
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return torch.add(a, b, alpha=3) - torch.sub(a, b, alpha=2)

    a, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    e = cr.derive(forward, a, b, upstream=torch.randn(4, 3, dtype=torch.float64)).explain()
    slopes = [text(p.display) for p in e["b.g"].derivation if p.title == "Slope"]
    assert sorted(slopes) == ["∂add(a, b, alpha=3)[i, j]/∂b[j] = 3", "∂sub(a, b, alpha=2)[i, j]/∂b[j] = −2"]


def test_comments_of_emitted_code() -> None:
    args = [torch.randn(shape) for shape in ((5, 3), (3, 3), (3,), (3, 2), (5, 2))]
    d = cr.derive(network, *args)
    assert "# (5, 3)" in d.source(comments="shapes")
    assert "# ∂L/∂w2 = zᵀ ∂L/∂out" in d.source("function", comments="math")
    assert "# every row uses the same b1: the sum over the rows" in d.source("autograd", comments="why")
    assert "# ∂L/∂w2 = zᵀ ∂L/∂out" in d.source("numpy", comments="math")
    with pytest.raises(cr.ChainruleError, match="takes no comments"):
        d.source("layers", comments="why")
    with pytest.raises(cr.ChainruleError, match="no comments are called 'all'"):
        d.source(comments="all")


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return 2 * x * g


def test_a_step_of_a_person_s_own_is_not_derived() -> None:
    e = cr.derive(lambda x: (Square.apply(x) + x).sum(), torch.randn(3)).explain()
    said = str(e["x.g"])
    assert "Square has a backward step of its own" in said and "Square(x)" in said


def test_steps_of_one_kind_are_explained_once() -> None:
    def recurrence(x: Tensor, u: Tensor, h: Tensor) -> Tensor:
        for t in range(12):
            h = torch.tanh(x[t] + h @ u)
        return h.sum()

    e = cr.derive(recurrence, torch.randn(12, 2, 5), torch.randn(5, 5), torch.randn(2, 5), wrt=["u"]).explain()
    said = str(e["u.g"])
    assert said.count("Why the transpose") == 1 and said.count("In the same way") >= 11 and "and 9 others" in said
