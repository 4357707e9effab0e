"""Explanations: what a step says in mathematics is computed and compared with what it gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from evaluated import NotComputed, holds, spread, value_of
from torch import Tensor
from zoo import ENTRIES, Entry

import chainrule as cr
from chainrule.checking.examples import of_rule
from chainrule.explain import Explanation
from chainrule.rules import BOOK
from chainrule.run import needed, run
from chainrule.show.mathematics import Term, latex, text
from chainrule.show.mathematics.term import name


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
        for paragraph in step.derivation:
            equation = paragraph.display
            if equation is None or equation.sign != "equation":
                continue
            assert computed(equation, known) in (True, None), (step.code, str(paragraph))


@pytest.mark.parametrize("name", sorted(name for name, rule in BOOK.rules.items() if of_rule(rule) is not None))
def test_the_slopes_that_a_derivation_names_are_the_entries_of_the_jacobian(name: str) -> None:
    compare_slopes(name)


COMPARED = (
    "matmul", "linear", "exp", "sigmoid", "gelu", "relu", "softplus", "square", "asin", "mean", "softmax", "log_softmax",
    "mse_loss", "binary_cross_entropy_with_logits",
)  # fmt: skip


def test_slopes_are_compared() -> None:
    assert all(compare_slopes(name) for name in COMPARED)


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
        entries = jacobian(d, *equation.parts[0].parts)
        if entries is None:
            continue
        indices = "".join(t.text if t.sign == "element" else "" for t in equation.parts[0].parts)
        sizes = dict(zip(indices, entries.shape, strict=True))
        sizes["N"] = math.prod(n for c, n in sizes.items() if c not in equation.parts[0].parts[0].text)
        slope = value_of(equation.parts[1], values(e), sizes)
        if slope is None:
            continue
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
    "b1.g": "Why the sum over the rows",
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
    assert (
        said.count("Why the transpose") == 1 and said.count("As for the step through") >= 11 and "and 9 others" in said
    )


def said(forward: Callable[..., Tensor], *args: object, name: str = "", **options: object) -> str:
    """The last line of the backward pass, or the one of `name`, with its whole derivation."""
    output = forward(*args)
    d = cr.derive(forward, *args, upstream=torch.randn_like(output) if output.ndim else None, **options)
    steps = [s for s in d.explain() if s.phase == "backward"]
    return " ".join(str(d.explain()[name] if name else steps[-1]).split())


def test_a_share_is_not_written_as_the_whole_gradient() -> None:
    def residual(x: Tensor, w: Tensor) -> Tensor:
        y = torch.tanh(x @ w)
        z = y + x
        return z.pow(2).sum()

    text = said(residual, torch.randn(5, 3), torch.randn(3, 3), name="x.g")
    assert "∂L/∂x|z = ∂L/∂y" in text and "∂L/∂x = ∂L/∂x|z + ∂L/∂x|(x w)" in text
    assert "2 paths add up" in text and "∂L/∂x = ∂L/∂y Elements" not in text
    assert "w is square" not in text and "It is square here" in text


def test_the_linear_layer_of_torch_transposes_the_gradient() -> None:
    def linear(input: Tensor, weight: Tensor) -> Tensor:
        return F.linear(input, weight)

    text = said(linear, torch.randn(5, 4), torch.randn(3, 4), name="weight.g")
    assert "hence the gradient transposed" in text and "turning ∂L/∂out round" in text
    assert "transposed" not in said(linear, torch.randn(5, 4), torch.randn(3, 4), name="input.g")
    assert "∂out[k]/∂weight[k, j] = input[j]" in said(linear, torch.randn(4), torch.randn(3, 4), name="weight.g")


@pytest.mark.parametrize(
    "options",
    [{"weight": torch.rand(3)}, {"ignore_index": 2}, {"label_smoothing": 0.1}, {"target": torch.rand(4, 3)}],
    ids=lambda options: next(iter(options)),
)
def test_the_plain_story_of_cross_entropy_is_told_of_plain_cross_entropy(options: dict[str, Any]) -> None:
    target = options.get("target", torch.tensor([0, 1, 2, 0]))
    rest = {k: v for k, v in options.items() if k != "target"}
    text = said(lambda x: F.cross_entropy(x, target, **rest), torch.randn(4, 3))
    assert "p − y" not in text and "N = " not in text
    assert "N = 4" in said(lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2, 0])), torch.randn(4, 3))


def test_statements_that_hold_for_some_members_of_a_family_are_made_of_those_alone() -> None:
    x = torch.randn(4, 3)
    assert "its mean away" not in said(lambda x: F.rms_norm(x, (3,)), x)
    assert "stored" in said(lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3)), x)
    assert "bound" not in said(lambda x: F.leaky_relu(x, 0.2), x)
    assert "25% of the elements pass" in said(lambda x: x.relu().relu(), torch.tensor([-1.0, -2, -3, 4]))
    assert "are zero" not in said(lambda x, w: x @ w, torch.randn(5, 3), torch.randn(3, 1), name="w.g")
    assert "Half of them are zero" in said(lambda x, w: x @ w, torch.randn(5, 3), torch.randn(3, 2), name="w.g")
    assert "(target - x)" in said(lambda x, target: F.mse_loss(x, target), x, torch.randn(4, 3), name="target.g")
    assert "over the number" not in said(lambda x, y: F.mse_loss(x, y, reduction="sum"), x, torch.randn(4, 3))
    assert "conjugated" in said(lambda x, y: (x * y).abs(), x.cfloat(), x.cfloat(), name="x.g")


def test_arguments_by_name_and_odd_shapes_are_explained() -> None:
    x = torch.rand(4, 3)
    for forward in (
        lambda x: torch.sum(input=x), lambda x: torch.mean(input=x, dim=0), lambda x: torch.relu(input=x),
        lambda x: torch.pow(input=x, exponent=2), lambda x: torch.div(input=x, other=x + 1), lambda x: x.unsqueeze(dim=1),
        lambda x: torch.matmul(input=x, other=x.T), lambda x: x.sum(0).softmax(0), lambda x: x.sum().softmax(0),
    ):  # fmt: skip
        assert said(forward, x)


def test_formulas_keep_what_changes_numbers() -> None:
    e = cr.derive(
        lambda x: x * x.to(torch.int64) + x.var(False) + x.var(0, False).sum(),
        3 * torch.rand(4),
        upstream=torch.rand(4),
    )
    formulas = " ".join(text(s.formula) for s in e.explain() if s.formula is not None)
    assert "to(x, torch.int64)" in formulas and formulas.count("unbiased=False") == 2
    names = [latex(name(n)) for n in ("x", "x_", "_x", "eps", "epsilon", "w_", "w")]
    assert len(set(names)) == len(names)
