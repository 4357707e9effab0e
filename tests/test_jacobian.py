"""Jacobians between any two named values, against autograd row by row and torch.func.jacrev."""

from __future__ import annotations

import itertools

import pytest
import torch
from agreement import Leaves, assert_close, normal
from test_zoo import case, every_entry
from torch import Tensor
from zoo import Entry

import chainrule as cr
from chainrule.checking.oracles import _replay
from chainrule.errors import ChainruleError
from chainrule.program import differentiable
from chainrule.pullback import Pullback
from chainrule.reached import reached_from

LARGE = 20_000  # entries; more are left to the others


def rows_of(output: Tensor, tensor: Tensor) -> Tensor:
    """Autograd's Jacobian, one upstream at a time."""
    found = []
    for unit in torch.eye(output.numel(), dtype=output.dtype):
        (row,) = torch.autograd.grad(output, tensor, unit.view(output.shape), retain_graph=True, allow_unused=True)
        found.append(torch.zeros_like(tensor).flatten() if row is None else row.flatten())
    return torch.stack(found)


def output_name(d: cr.Derivation) -> str:
    return d.layout.variables[d.program.output]


@every_entry
def test_of_the_output_with_respect_to_every_input(entry: Entry) -> None:
    d, args, upstream = case(entry).d, case(entry).args, case(entry).upstream
    seed = torch.ones_like(d.output) if upstream is None else upstream
    with Leaves(d) as leaves:
        output = entry(*args)
        for name, tensor in zip(leaves.names, leaves.tensors, strict=True):
            if tensor.numel() * output.numel() > LARGE:
                continue
            j = d.jacobian(output_name(d), name)
            assert j.shape == (len(j.rows), len(j.columns)) == (output.numel(), tensor.numel())
            assert_close(j.matrix, rows_of(output, tensor))
            assert_close((seed.reshape(1, -1) @ j.matrix).reshape(tensor.shape), d.grads[name], 1e-9)


@every_entry
def test_between_values_on_the_way(entry: Entry) -> None:
    """Each value by its neighbours among the names, from the recorded forward pass run again under autograd."""
    d = case(entry).d
    program = d._base
    named = [k for k in d.names if differentiable(d.node(k)) and not d[k].value.is_complex()]
    for wrt, of in itertools.pairwise(named[-4:]):
        start, end = d.node(wrt).meta["base"], d.node(of).meta["base"]
        if d[of].value.numel() * d[wrt].value.numel() > LARGE:
            continue
        if start in reached_from([end], program.graph):
            with pytest.raises(ChainruleError, match="is computed before"):
                d.jacobian(of, wrt)
            continue
        leaf = d[wrt].value.clone().requires_grad_()
        known = {n: n.meta["val"].detach() for n in program.graph.nodes if n.op == "placeholder"}
        program.output, output = end, program.output
        try:
            value = _replay(program, {**known, start: leaf}, lambda v: v)[end]
        finally:
            program.output = output
        truth = rows_of(value, leaf) if value.requires_grad else torch.zeros(value.numel(), leaf.numel())
        j = d.jacobian(of, wrt)
        assert_close(j.matrix, truth.to(j.matrix.dtype))
        assert bool(j.note) == (end not in reached_from([start], program.graph))


@every_entry
def test_asking_leaves_the_derivation_as_it_is(entry: Entry) -> None:
    d = case(entry).d
    source = d.source("autograd")
    d.values()
    before = [(n, dict(n.meta)) for n in d._base.graph.nodes]
    name = next(n for n, g in d.grads.items() if g is not None)
    if d[name].value.numel() * d.output.numel() <= LARGE:
        d.jacobian(output_name(d), name)
    assert list(d._base.graph.nodes) == [n for n, _ in before]
    assert all(n.meta.keys() == m.keys() and all(n.meta[k] is m[k] for k in m) for n, m in before)
    d._confirmed.clear()
    assert d.source("autograd") == source


def layers(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    l1 = x @ w1
    l2 = l1.tanh()
    out = l2 @ w2
    both = out + x  # a path around
    loss = (both**2).mean()
    return loss


def derived(n: int = 4) -> tuple[cr.Derivation, list[Tensor]]:
    torch.manual_seed(0)
    args = [normal(n, 3), normal(3, 5), normal(5, 3)]
    return cr.derive(layers, *args), args


def test_as_jacrev() -> None:
    d, (x, w1, w2) = derived()

    def both(w1: Tensor) -> Tensor:
        return (x @ w1).tanh() @ w2 + x

    j = d.jacobian("both", "w1")
    assert_close(j.matrix, torch.func.jacrev(both)(w1).reshape(12, 15))
    assert (j.rows[5], j.columns[-1]) == ("both[1, 2]", "w1[2, 4]")
    assert (j.of_shape, j.wrt_shape) == ((4, 3), (3, 5))


def test_one_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    d, _ = derived()
    together = d.jacobian("both", "x").matrix
    monkeypatch.setattr(Pullback, "_together", lambda self: 1)
    assert_close(d.jacobian("both", "x").matrix, together)


def test_gradients_that_pass_one_node_are_kept_apart() -> None:
    """b.g is written 3 * c.g, and a.g is c.g: an upstream of `a` must not come back through `c`."""

    def forward(b: Tensor) -> Tensor:
        a = 2 * b
        c = a + b
        return (c**2).sum()

    d = cr.derive(forward, normal(3))
    for of, wrt, factor in (("a", "b", 2), ("c", "b", 3), ("c", "a", 1), ("b", "b", 1)):
        assert_close(d.jacobian(of, wrt).matrix, factor * torch.eye(3, dtype=torch.float64))


def test_a_value_that_nothing_passes_to_has_zeros() -> None:
    d, _ = derived()
    j = d.jacobian("l1", "w2")
    assert not j.matrix.any() and j.shape == (20, 15)
    assert "l1 does not depend on w2" in str(j)


def test_the_table_is_small() -> None:
    d, _ = derived(300)
    text = str(d.jacobian("both", "x"))
    assert len(text.splitlines()) <= 16 and max(map(len, text.splitlines())) < 140
    assert "both[0, 0]" in text and "x[299, 2]" in text and "…" in text
    small = str(d.jacobian("loss", "loss"))
    assert small.splitlines()[1:] == ["      loss", "loss     1"]


@pytest.mark.parametrize(
    "of, wrt, message",
    [
        ("w1", "both", r"w1 is computed before both.*jacobian\(\"both\", \"w1\"\)"),
        ("both", "w9", "no value is named 'w9'; there are x, w1"),
        ("both.g", "w1", "both.g is a gradient; name both"),
        ("both", 3, "takes the name of a value, not int"),
    ],
)
def test_what_is_refused(of: str, wrt: str, message: str) -> None:
    with pytest.raises(ChainruleError, match=message):
        derived()[0].jacobian(of, wrt)


def test_numbers_without_a_slope_are_refused() -> None:
    d = cr.derive(lambda w, i: w[i].sum(), normal(5), torch.tensor([1, 2]))
    with pytest.raises(ChainruleError, match=r"a Jacobian needs real floating numbers, and i \(2,\) is int64"):
        d.jacobian("loss", "i")


def test_a_large_one_is_refused_with_its_size() -> None:
    x, w = torch.rand(1000, 64), torch.rand(64, 50)

    def forward(x: Tensor, w: Tensor) -> Tensor:
        l1 = x @ w
        return l1.sum()

    with pytest.raises(ChainruleError) as error:
        cr.derive(forward, x, w).jacobian("l1", "w")
    said = "the Jacobian of l1 (1000, 50) with respect to w (64, 50) has 50,000 x 3,200 entries, 0.64 GB in float32"
    assert said in str(error.value) and "l1.shape[0] of 312 or fewer" in str(error.value)


def test_inputs_that_have_moved_are_refused() -> None:
    d, (_, w1, _) = derived()
    w1 += 1
    with pytest.raises(ChainruleError, match="an input was changed since"):
        d.jacobian("loss", "w1")


def test_a_value_inside_a_function_with_its_own_backward_step_is_refused() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(x)
            inner = x * x
            return inner * 1.5

        @staticmethod
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return 3 * ctx.saved_tensors[0] * g

    def forward(x: Tensor) -> Tensor:
        y = Square.apply(x)
        return y.sum()

    x = normal(3)
    d = cr.derive(forward, x)
    assert_close(d.jacobian("y", "x").matrix, torch.diag(3 * x))
    for of, wrt in (("inner", "x"), ("y", "inner")):
        with pytest.raises(ChainruleError, match="is computed inside Square"):
            d.jacobian(of, wrt)


def test_a_rule_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainrule.rules import BOOK

    d, _ = derived()
    found = BOOK.find("tanh")
    assert found is not None

    def wrong(out, x):  # type: ignore[no-untyped-def]
        x.g = out.g * (1 - out)

    monkeypatch.setitem(found.__dict__, "backward", wrong)
    with pytest.raises(ChainruleError, match=r"the derivative of both .* with respect to w1 .* is not autograd's"):
        d.jacobian("both", "w1")
