"""One element moved: the changes against runs of the function itself, the prediction against the gradient."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from agreement import normal
from test_zoo import case, every_entry
from torch import Tensor
from zoo import Entry

import chainrule as cr
from chainrule.errors import ChainruleError


def total(output: Tensor, upstream: Tensor | None) -> float:
    return float((output if upstream is None else output * upstream.conj()).real.sum())


@every_entry
def test_changes_are_those_of_the_function(entry: Entry) -> None:
    c = case(entry)
    d, by = c.d, 1e-4
    for (name, gradient), (tensor, _) in zip(d.grads.items(), d.pairs(), strict=True):
        if gradient is None or tensor.numel() == 0:
            continue
        index = tuple(int(i) for i in torch.unravel_index(gradient.abs().argmax(), gradient.shape))
        found = d.nudge(name, index, by)
        with torch.no_grad():
            before = entry(*c.args)
            kept = tensor[index].clone()
            tensor.data[index] += by  # by .data: the case is shared, and autograd counts other writes
            try:
                after = entry(*c.args)
            finally:
                tensor.data[index] = kept
        size = max(1.0, abs(total(before, c.upstream)))
        assert abs(found.actual - (total(after, c.upstream) - total(before, c.upstream))) < 1e-12 * size, name
        change = found[d.layout.variables[d.program.output]].difference
        assert float((change - (after - before)).abs().max()) < 1e-11 * size, name
        assert math.isclose(found.predicted, float(gradient[index]) * by, rel_tol=1e-12)
        if entry.smooth and abs(found.predicted) > 1e-9:
            assert abs(found.ratio - 1) < 0.05 or found.notes, str(found)
        assert d[name].value[index] == tensor[index] == kept


def network(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    l1 = x @ w1
    l2 = l1.clamp_min(0.0)
    out = l2 @ w2
    loss = (out**2).mean()
    return loss


def derived(**how: Any) -> cr.Derivation:
    torch.manual_seed(1)
    return cr.derive(network, normal(4, 3), normal(3, 5), normal(5, 2), **how)


def test_every_value_that_follows_is_listed() -> None:
    found = derived().nudge("w1", (2, 1), by=1e-3)
    assert [c.name for c in found.changes] == ["w1", "l1", "l2", "out", "loss"]
    assert found["w1"].moved == 1 and found["w1"].at == (2, 1)
    assert found["l1"].moved == 4 and set(found["l1"].difference.nonzero()[:, 1].tolist()) == {1}
    assert abs(found.ratio - 1) < 0.01 and not found.notes
    text = str(found)
    assert "w1[2, 1] moved by 0.001" in text and "4 of 20" in text and "w1.g[2, 1]" in text


def test_of_a_value_on_the_way_only_what_follows_moves() -> None:
    d = derived()
    found = d.nudge("l2", (0, -1), by=1e-3)
    assert found.at == (0, 4)
    assert [c.name for c in found.changes] == ["l2", "out", "loss"]
    assert found["out"].moved == 2
    g = d["l2"].g
    assert g is not None and math.isclose(found.slope, float(g[0, 4]))


def test_a_gradient_that_was_not_asked_for_is_computed() -> None:
    d, whole = derived(wrt="w2"), derived()
    assert math.isclose(d.nudge("w1", (0, 0)).slope, float(whole.grads["w1"][0, 0]))  # type: ignore[index]


def test_a_kink_that_was_crossed_is_said() -> None:
    d = cr.derive(lambda x: x.clamp_min(0.0).sum(), torch.tensor([-0.5, 2.0]))
    found = d.nudge("x", 0, by=1.0)
    assert (found.predicted, found.actual) == (0.0, 0.5)
    assert "crossed a kink" in found.notes[0] and "1 element of clamp_min (test_nudge.py:" in found.notes[0]
    moved = derived().nudge("w1", (0, 0), by=5.0)
    line = network.__code__.co_firstlineno + 2
    assert f" of clamp_min (test_nudge.py:{line})" in moved.notes[0]
    assert not d.nudge("x", 0, by=0.25).notes


def test_curvature_is_said_with_the_ratio_of_a_smaller_step() -> None:
    found = cr.derive(lambda x: (x**2).sum(), torch.tensor([1.0])).nudge("x", 0, by=1.0)
    assert found.ratio == 1.5 and "the ratio is 1.05" in found.notes[0]
    flat = cr.derive(lambda x: (x**2).sum(), torch.tensor([0.0])).nudge("x", 0, by=1.0)
    assert math.isinf(flat.ratio) and "second order" in flat.notes[0]


def test_a_path_without_gradient_is_said() -> None:
    found = cr.derive(lambda x: (x * x.detach()).sum(), torch.tensor([3.0])).nudge("x", 0)
    assert abs(found.ratio - 2) < 0.01 and "where no gradient passes" in found.notes[0]


def test_rounding_is_said() -> None:
    found = cr.derive(lambda x: x.sum() + 1e6, torch.tensor([1.0, 2.0])).nudge("x", 0, by=1e-11)
    assert "lost in rounding" in found.notes[0]


def test_a_gradient_that_rounding_has_spoilt_is_said() -> None:
    """Of the mean square of a normalised vector nothing is left but rounding."""
    x = torch.randn(1, 8, generator=torch.Generator().manual_seed(0)) * 9 + 1000
    found = cr.derive(lambda x: (torch.nn.functional.layer_norm(x, (8,)) ** 2).mean(), x).nudge("x", (0, 0))
    assert abs(found.ratio - 1) > 0.05 and "the gradient is rounded, in float32; in float64 it is" in found.notes[0]


def test_a_backward_step_that_is_no_slope_is_said() -> None:
    class Through(torch.autograd.Function):
        """The straight-through estimator."""

        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return 3 * x

        @staticmethod
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return g

    found = cr.derive(lambda x: Through.apply(x).sum(), normal(3)).nudge("x", 1)
    assert math.isclose(found.ratio, 3.0) and "a function with a backward step of its own" in found.notes[0]


def test_an_output_that_is_no_scalar_is_weighed_by_its_upstream() -> None:
    x, upstream = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 100.0])
    found = cr.derive(lambda x: 3 * x, x, upstream=upstream).nudge("x", 1, by=0.5)
    assert math.isclose(found.actual, 150.0) and math.isclose(found.predicted, 150.0)
    assert "sum(out * out_g) changed by 150" in str(found)


def test_a_value_that_the_output_does_not_read() -> None:
    def forward(x: Tensor, y: Tensor) -> Tensor:
        other = y * 2
        loss = x.sum() + other.detach().sum()
        return loss

    found = cr.derive(forward, normal(2), normal(2), wrt="x").nudge("y", 0)
    assert found.predicted == 0 and "where no gradient passes" in found.notes[0]


def test_a_branch_that_would_be_another_is_said() -> None:
    def forward(x: Tensor) -> Tensor:
        return (2 * x).sum() if x.sum() > 1.0 else (x**2).sum()

    d = cr.derive(forward, torch.tensor([1.0, 0.5]))
    assert not d.nudge("x", 0, by=-0.25).notes
    found = d.nudge("x", 0, by=-1.0)
    line = forward.__code__.co_firstlineno + 1
    assert f"another branch at test_nudge.py:{line}; shown is the one that was recorded" in found.notes[0]
    assert (found.actual, found.predicted) == (-2.0, -2.0)


def test_other_elements_behind_a_mask_cannot_be_compared() -> None:
    def forward(x: Tensor) -> Tensor:
        kept = x[x > 0]
        loss = (kept**2).sum()
        return loss

    d = cr.derive(forward, torch.tensor([1.0, -0.5]))
    with pytest.raises(ChainruleError, match=r"the shape of kept from \(1,\) to \(2,\).*move by less \(test_nudge.py"):
        d.nudge("x", 1, by=1.0)


def test_values_without_elements() -> None:
    def forward(x: Tensor) -> Tensor:
        none = x[:0] * 2
        loss = none.sum() + x.sum()
        return loss

    found = cr.derive(forward, normal(3, 2)).nudge("x", (0, 0))
    assert "none" in found.unchanged and abs(found.ratio - 1) < 1e-9


def test_as_html() -> None:
    text = derived().nudge("w1", (0, 0))._repr_html_()
    assert text.count("<table>") == 2 and "w1[0, 0] moved by 0.001" in text


@pytest.mark.parametrize(
    "name, at, by, message",
    [
        ("w9", 0, 1e-3, "no value is named 'w9'"),
        ("w1", (3, 0), 1e-3, r"w1 has shape \(3, 5\), in which there is no element \[3, 0\]"),
        ("w1", 2, 1e-3, r"needs 2 indices, such as \(0, 0\), not 2"),
        ("w1", (0, 1.5), 1e-3, r"takes one integer for each of its dimensions, not \(0, 1.5\)"),
        ("w1.g", (0, 0), 1e-3, "w1.g is a gradient; name w1"),
        ("w1", (0, 0), 0, "by a number other than 0, not by 0"),
        ("w1", (0, 0), math.nan, "by a number other than 0, not by nan"),
    ],
)
def test_what_is_refused(name: str, at: Any, by: float, message: str) -> None:
    with pytest.raises(ChainruleError, match=message):
        derived().nudge(name, at, by)


def test_whole_numbers_are_refused() -> None:
    d = cr.derive(lambda w, i: w[i].sum(), normal(5), torch.tensor([1, 2]))
    with pytest.raises(ChainruleError, match=r"a nudge needs real floating numbers, and i \(2,\) is int64"):
        d.nudge("i", 0)


@pytest.mark.filterwarnings("ignore:.*first appears")
@pytest.mark.parametrize(
    ("function", "values", "by", "said"),
    [
        (lambda x: x.log().sum(), [1.0, -1.0], 0.1, "loss is nan before the step"),
        (lambda x: (1 / x).sum(), [1.0, 0.0], 0.1, "loss is inf before the step"),
        (lambda x: x.sqrt().sum(), [0.01, 1.0], -0.1, "loss is nan after the step"),
        (lambda x: x.sqrt().sum(), [0.0, 1.0], 0.1, "the gradient is inf here"),
    ],
)
def test_numbers_that_are_not_finite_are_said_and_the_backward_pass_is_not_blamed(
    function: Any, values: list[float], by: float, said: str
) -> None:
    found = cr.derive(function, torch.tensor(values, dtype=torch.float64)).nudge("x", 0, by)
    (note,) = found.notes
    assert said in note and not re.search(r"ratio|\+nan|backward", str(found)), str(found)


@pytest.mark.parametrize(("value", "by"), [(-0.5, 1.0), (-0.5, -1.0), (0.5, -0.5)])
def test_a_change_or_a_prediction_of_nothing_has_no_ratio(value: float, by: float) -> None:
    found = cr.derive(lambda x: (x.abs() - 0.5).relu().sum(), torch.tensor([value, 2.0])).nudge("x", 0, by)
    clamped = cr.derive(lambda x: x.relu().sum(), torch.tensor([value, 2.0])).nudge("x", 0, by)
    for nudge in (found, clamped):
        zero = 0 in (nudge.actual, nudge.predicted)
        assert zero != ("ratio" in str(nudge)) and zero != ("ratio" in repr(nudge))
        assert not re.search(r"-0\b(?!\.)|ratio inf", str(nudge))
