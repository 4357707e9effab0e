"""Other inputs for a recorded program: other values of the same kind, and sizes unlike one another."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from programs import FAMILIES, random_program
from torch import Tensor, fx

import chainrule as cr
from chainrule.diagnosis.truth.points import fresh
from chainrule.diagnosis.truth.sizes import unequal
from chainrule.run import double, needed, run


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def other(value: Tensor, seed: int = 0) -> Tensor:
    node = fx.Graph().placeholder("x")
    return fresh({node: value}, seed)[node]


def shapes(function: Any, *args: Any, runs: int = 300) -> dict[str, tuple[int, ...]] | None:
    """The shapes that `unequal` gives the inputs, after a run of the program on them."""
    base = cr.derive(function, *args)._base
    guards = [g.node for g in base.guards]
    inputs = {n: n.meta["val"] for n in base.inputs}
    found = unequal(needed([base.output]), inputs, 0, guards=guards, runs=runs)
    if found is None:
        return None
    with torch.no_grad():
        values = run(needed([base.output, *guards]), found, double)
    assert all(bool(values[g]) for g in guards)
    assert bool(values[base.output].isfinite())
    assert all(v.dtype == torch.float64 for v in found.values() if v.is_floating_point())
    return {n.meta["name"]: tuple(v.shape) for n, v in found.items() if n in needed([base.output])}


# Other values


def test_normal_numbers_keep_their_scale() -> None:
    for value in (rand(50, 7), 1e4 * rand(400), 5 + 0.1 * rand(300)):
        made = other(value)
        assert made.shape == value.shape and made.dtype == torch.float64
        assert not (made == value).any()
        assert 0.5 < float(made.std() / value.std()) < 2
        assert abs(float(made.mean() - value.mean())) < float(value.std())


def test_signs_ranges_and_sums_are_kept() -> None:
    positive = rand(30).exp()
    assert bool((other(positive) > 0).all()) and bool((other(-positive) < 0).all())
    between = rand(30).sigmoid()
    assert bool(((other(between) > 0) & (other(between) < 1)).all())
    rows = rand(6, 5).softmax(-1)
    assert bool((other(rows) > 0).all())
    torch.testing.assert_close(other(rows).sum(-1), torch.ones(6, dtype=torch.float64))
    assert bool((other(rand(40).relu()) >= 0).all())


def test_constants_become_random() -> None:
    assert len(other(torch.zeros(9)).unique()) == 9
    assert len(other(torch.ones(9)).unique()) == 9 and bool((other(torch.ones(9)) > 0).all())
    assert float(other(torch.tensor(3.0))) > 0 and float(other(torch.tensor(3.0))) != 3


def test_masks_stay_masks() -> None:
    dropout = (rand(8, 5) > 0) / 0.5
    assert sorted(other(dropout).sum(-1).tolist()) == sorted(dropout.sum(-1).tolist())
    assert set(other(dropout).unique().tolist()) == {0.0, 2.0}
    one_hot = F.one_hot(torch.tensor([0, 2, 2, 1]), 3).float()
    assert bool((other(one_hot).sum(-1) == 1).all())
    causal = torch.full((4, 4), float("-inf")).triu(1)
    assert bool((other(causal) == 0).any(-1).all())
    labels = torch.tensor([1.0, -1.0, 1.0])
    assert sorted(other(labels).tolist()) == sorted(labels.tolist())
    lower = rand(6, 6).tril()
    assert bool((other(lower).triu(1) == 0).all()) and bool((other(lower).tril() != 0).sum() == 21)


def test_integers_truth_values_and_others_stay() -> None:
    for value in (torch.arange(4), rand(3) > 0):
        assert torch.equal(other(value), value)
    nodes = [fx.Graph().placeholder("n") for _ in range(2)]
    assert fresh({nodes[0]: 3, nodes[1]: None}, 0) == {nodes[0]: 3, nodes[1]: None}


def test_matrices_keep_their_kind() -> None:
    a = rand(5, 5).double()
    made = other(a @ a.T + torch.eye(5))
    assert torch.equal(made, made.T)
    torch.linalg.cholesky(made)
    assert bool((other(torch.linspace(0, 1, 9)).diff() > 0).all())


def test_not_finite_empty_and_complex() -> None:
    value = rand(5)
    value[2] = float("-inf")
    made = other(value)
    assert float(made[2]) == float("-inf") and bool(made[[0, 1, 3, 4]].isfinite().all())
    assert other(torch.full((2,), float("nan"))).isnan().all()
    assert other(torch.zeros(0, 3)).shape == (0, 3)
    assert other(torch.complex(rand(4), rand(4))).dtype == torch.complex128


def test_seeds_differ_and_repeat() -> None:
    state = torch.get_rng_state()
    assert torch.equal(other(rand(4), 1), other(rand(4), 1))
    assert not torch.equal(other(rand(4), 1), other(rand(4), 2))
    value = rand(4).double()
    before = value.clone()
    other(value).zero_()
    assert torch.equal(value, before) and torch.equal(state, torch.get_rng_state())


# Other sizes

W1, B1, W2, B2 = rand(4, 4), rand(4), rand(4, 4) + 1, rand(4) + 1


def test_two_layers() -> None:
    def mlp(x: Tensor, y: Tensor) -> Tensor:
        return ((x @ W1 + B1).relu() @ W2 + B2 - y).pow(2).mean()

    s = shapes(mlp, rand(4, 4), rand(4, 4))
    assert s is not None
    (batch, in_), (hidden, out) = s["x"], s["W2"]
    assert len({batch, in_, hidden, out, 4}) == 5
    assert s == {"x": (batch, in_), "y": (batch, out), "W1": (in_, hidden), "B1": (hidden,), "W2": (hidden, out),
                 "B2": (out,)}  # fmt: skip


def test_attention() -> None:
    def attention(x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (((x @ q) @ (x @ k).mT / 2.0).softmax(-1) @ (x @ v)).pow(2).mean()

    s = shapes(attention, rand(4, 4, 4), rand(4, 4), rand(4, 4), rand(4, 4))
    assert s is not None
    (batch, time, width), head, value = s["x"], s["q"][1], s["v"][1]
    assert len({batch, time, width, head, value, 4}) == 6
    assert s["q"] == s["k"] == (width, head) and s["v"] == (width, value)


def test_several_heads_and_a_mask() -> None:
    mask = torch.ones(4, 4).tril()

    def attention(x: Tensor, w: Tensor) -> Tensor:
        batch, time, width = x.shape
        q = (x @ w).view(batch, time, 2, width // 2).transpose(1, 2)
        scores = (q @ q.mT).masked_fill(mask == 0, float("-inf")).softmax(-1)
        return (scores @ q).transpose(1, 2).reshape(batch, time, width).pow(2).mean()

    s = shapes(attention, rand(4, 4, 4), rand(4, 4))
    assert s is not None
    batch, time, width = s["x"]
    assert len({batch, time, width, 4}) == 4 and width % 2 == 0
    assert s["w"] == (width, width) and s["mask"] == (time, time)


def test_batch_norm_by_parts_and_whole() -> None:
    def parts(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
        normal = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
        return (normal * g + b).pow(2).sum() / x.shape[0]

    def whole(x: Tensor, g: Tensor, b: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, g, b, True).pow(2).sum()

    for function in (parts, whole):
        s = shapes(function, rand(4, 4), rand(4), rand(4))
        assert s is not None
        assert len({*s["x"], 4}) == 3 and s["g"] == s["b"] == s["x"][1:]


def test_embedding() -> None:
    def embedding(table: Tensor, index: Tensor, w: Tensor) -> Tensor:
        return (table[index] @ w).pow(2).sum()

    s = shapes(embedding, rand(4, 4), torch.tensor([[0, 3, 2, 2]] * 4), rand(4, 4))
    assert s is not None
    assert len({*s["table"], *s["index"], s["w"][1], 4}) == 6 and s["w"][0] == s["table"][1]


def test_convolution() -> None:
    def conv(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.conv2d(x, w, b, padding=1).relu().mean((2, 3)).sum()

    s = shapes(conv, rand(4, 4, 4, 4), rand(4, 4, 3, 3), rand(4))
    assert s is not None
    assert len({*s["x"], s["w"][0], 4}) == 6
    assert s["w"][1] == s["x"][1] and s["b"] == s["w"][:1]


def test_size_that_is_made_of_others() -> None:
    def conv(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return (F.conv2d(x, w, padding=1).flatten(1) @ v).pow(2).sum()

    s = shapes(conv, rand(4, 4, 4, 4), rand(4, 4, 3, 3), rand(64, 4))
    assert s is not None
    _, _, height, width = s["x"]
    assert s["v"][0] == s["w"][0] * height * width and len({*s["x"], s["w"][0], s["v"][1]}) == 6

    s = shapes(lambda x, y, z, w: (torch.cat([x, y, z], 1) @ w).sum(), *[rand(4, 4)] * 1, rand(4, 4) + 1,
               rand(4, 4) + 2, rand(12, 4))  # fmt: skip
    assert s is not None
    assert s["x"][0] == s["y"][0] == s["z"][0]
    assert len({s["x"], s["y"], s["z"]}) == 3 and s["w"][0] == s["x"][1] + s["y"][1] + s["z"][1]


def test_what_the_program_writes_as_a_number_stays() -> None:
    s = shapes(lambda x, w: (x.view(4, 4) @ w).pow(2).sum(), rand(4, 4), rand(4, 4))
    assert s is not None
    assert s["x"] == (4, 4) and s["w"][0] == 4 != s["w"][1]

    def loop(x: Tensor) -> Tensor:
        total = x.new_zeros(x.shape[1])
        for i in range(x.shape[0]):
            total = total + i * x[i]
        return total.pow(2).sum()

    s = shapes(loop, rand(4, 4))
    assert s is not None
    assert s["x"][0] == 4 != s["x"][1]


def test_square_stays_square() -> None:
    s = shapes(lambda x: (x @ x).sum(), rand(4, 4))
    assert s is not None and s["x"][0] == s["x"][1] > 4
    a = rand(4, 4)
    s = shapes(lambda x: torch.linalg.cholesky(x).sum(), a @ a.T + torch.eye(4))
    assert s is not None and s["x"][0] == s["x"][1] > 4


def test_many_layers_are_tied_within_the_runs() -> None:
    def deep(x: Tensor, *weights: Tensor) -> Tensor:
        for w in weights:
            x = torch.tanh(x @ w) + x
        return x.sum()

    s = shapes(deep, rand(4, 4), *[rand(4, 4) + i for i in range(12)])
    assert s is not None
    batch, width = s.pop("x")
    assert len({batch, width, 4}) == 3 and set(s.values()) == {(width, width)}


def test_nothing_to_change() -> None:
    assert shapes(lambda x: x.sum(), torch.tensor(2.0)) is None
    assert shapes(lambda x: (x * 2).sum(), rand(1, 1)) is None
    assert shapes(lambda x: (x.view(3, 2) * 2).sum(), rand(3, 2)) is None
    assert shapes(lambda x: (x @ x.T).sum(), rand(4, 4), runs=1) is None


def test_axes_of_size_one_and_zero_stay() -> None:
    s = shapes(lambda x, y: (x + y).sum(), rand(4, 1), rand(4, 4))
    assert s is not None
    assert s["x"] == (s["y"][0], 1) and len({*s["y"], 4}) == 3
    s = shapes(lambda x: x.sum(), rand(0, 3))
    assert s is not None and s["x"] == (0, 4)


def test_conditions_on_values_may_need_the_values_as_they_were() -> None:
    def step(x: Tensor) -> Tensor:
        return x.sum() if float(x[0]) == 1.5 else x.prod()

    s = shapes(step, torch.tensor([1.5, -0.3, 2.0]))
    assert s == {"x": (4,)}


def test_inputs_are_left_alone_and_the_upstream_too() -> None:
    x, w = rand(4, 4).double(), rand(4, 4).double() + 1
    kept = x.clone(), w.clone()
    base = cr.derive(lambda x, w: x @ w, x, w, upstream=rand(4, 4).double())._base
    inputs = {n: n.meta["val"] for n in base.inputs}
    state = torch.get_rng_state()
    found = unequal(needed([base.output]), inputs, 3)
    assert found is not None and base.upstream is not None
    assert found[base.upstream].shape == (4, 4)
    again = unequal(needed([base.output]), inputs, 3)
    assert again is not None and all(torch.equal(found[n], again[n]) for n in found)
    for value in found.values():
        value.zero_()
    assert torch.equal(x, kept[0]) and torch.equal(w, kept[1]) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("family", FAMILIES)
def test_random_programs_run_at_other_points(family: str) -> None:
    for seed in range(15):
        picks = random.Random(f"{family}{seed}")
        program = random_program(picks.randrange, family)
        function = program.function()
        base = cr.derive(function, *program.arguments)._base
        nodes = needed([base.output])
        made = fresh({n: n.meta["val"] for n in base.inputs}, seed)
        assert bool(run(nodes, made, double)[base.output].isfinite())
        shapes(function, *program.arguments)
