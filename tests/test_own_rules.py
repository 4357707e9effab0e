"""A rule of one's own is held to what the book's rules are held to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import chainrule as cr
from chainrule.testing import assert_rule


def doubled(x: Tensor, by: float = 2.0) -> Tensor:
    return x * by


def rounded(x: Tensor) -> Tensor:
    return x.round()


def softened(x: Tensor, slope: Tensor) -> Tensor:
    if x.shape[-1] < 2:
        raise ValueError("one column is too few")
    return torch.where(x > 0, x, slope * x).sum(-1)


def outside(x: Tensor) -> Tensor:
    """Computed where autograd cannot follow."""
    with torch.no_grad():
        return x**3


@pytest.fixture(autouse=True)
def rules_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.rules.BOOK.rules", dict(cr.rules.BOOK.rules))  # type: ignore[attr-defined]


def test_a_right_rule() -> None:
    @cr.rule(softened)
    def backward(out: Any, x: Any, slope: Any) -> None:
        g = out.g.unsqueeze(-1)
        x.g = torch.where(x > 0, g, g * slope)
        slope.g = torch.where(x > 0, 0, g * x)

    assert_rule(softened, ["r(3, 4), r()", "r(3, 4), r(4)", (torch.randn(3), torch.randn(3))])
    assert_rule(softened, [((torch.randn(2, 3),), {"slope": torch.randn(3)})])


def test_the_rules_of_torch() -> None:
    assert_rule(torch.sin, ["r(3, 4)"])
    with pytest.raises(cr.ChainruleError, match="rounded has no rule; write one with"):
        assert_rule(rounded, ["r(3)"])


def test_a_wrong_rule_is_told_with_the_place_and_the_size() -> None:
    @cr.rule(doubled)
    def backward(out: Any, x: Any, by: float = 2.0) -> None:
        x.g = out.g * 2

    assert_rule(doubled, ["r(3)"])
    message = r"doubled: the gradient of x \(3,\) differs by .*, most at \[\d\]: .* where autograd has .*\nsample: r\(3\), 3.0"
    with pytest.raises(AssertionError, match=message):
        assert_rule(doubled, ["r(3)", "r(3), 3.0"])


def test_a_rule_that_is_wrong_in_an_awkward_shape_alone() -> None:
    @cr.rule(doubled)
    def backward(out: Any, x: Any, by: float = 2.0) -> None:
        x.g = out.g * by * (1 if x.shape[0] > 1 else 3)

    with pytest.raises(AssertionError, match=r"sample: r\(3, 4\), first axis of size 1"):
        assert_rule(doubled, ["r(3, 4)"])


def test_a_straight_through_estimator_is_not_the_slope() -> None:
    @cr.rule(rounded)
    def backward(out: Any, x: Any) -> None:
        x.g = out.g

    with pytest.raises(AssertionError, match=r"the gradient of x .* differs by .* where autograd has 0"):
        assert_rule(rounded, ["r(3, 4)"])


def test_a_function_that_autograd_cannot_follow_is_measured() -> None:
    @cr.rule(outside)
    def backward(out: Any, x: Any) -> None:
        x.g = 3 * out.g * x**2

    assert_rule(outside, ["r(3, 4)"])

    @cr.rule(outside)
    def wrong(out: Any, x: Any) -> None:
        x.g = 2 * out.g * x**2

    with pytest.raises(AssertionError, match="not the slope of the function"):
        assert_rule(outside, ["r(3, 4)"])


def test_a_refused_sample_says_why() -> None:
    @cr.rule(softened)
    def backward(out: Any, x: Any, slope: Any) -> None:
        x.g = out.g.unsqueeze(-1)

    with pytest.raises(AssertionError, match="softened refuses the sample: one column is too few"):
        assert_rule(softened, ["r(3, 1), r()"])
