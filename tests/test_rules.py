"""Every rule of the book over its own samples, and over the same samples in awkward shapes."""

from __future__ import annotations

import pytest
import torch
from sweeps import of_today

import chainrule as cr
from chainrule.checking.rules import VARIANTS, assert_right, assert_variant, forward_of
from chainrule.rules import BOOK, Rule
from chainrule.rules.book import RuleBook
from chainrule.rules.samples import arguments


def rules_of(book: RuleBook) -> list[Rule]:
    """The rules that the book has by itself; tests may add more."""
    return [r for r in book.rules.values() if r.backward.__module__.startswith("chainrule.rules.")]


RULES = rules_of(BOOK)
BY_CONVENTION = ("ctc_loss", "scale_grad_by_freq")  # the gradient is not the slope of the function, in torch either
SAMPLES = [pytest.param(r, s, id=f"{r.name}: {s}") for r in RULES for s in r.samples]
AWKWARD = [pytest.param(r, s, v, id=f"{r.name}: {s}-{v}") for r in RULES for s in r.samples for v in VARIANTS]


@pytest.mark.parametrize("rule", [pytest.param(r, id=r.name) for r in RULES])
def test_every_rule_has_a_sample(rule: Rule) -> None:
    assert rule.samples


@pytest.mark.parametrize(("rule", "sample"), SAMPLES)
def test_rule_is_right(rule: Rule, sample: str) -> None:
    slope = not any(word in f"{rule.name}: {sample}" for word in BY_CONVENTION)
    assert assert_right(rule, arguments(sample), differences=slope)


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning", "ignore:.*first appears in:RuntimeWarning")
@pytest.mark.parametrize(("rule", "sample", "variant"), of_today(AWKWARD, 3))
def test_rule_is_right_in_awkward_shapes(rule: Rule, sample: str, variant: str) -> None:
    if rule.name == "multi_margin_loss" and variant == "first axis empty":
        pytest.skip("torch gives what its memory held before, for the sum of an empty batch")
    assert_variant(rule, arguments(sample), variant)


def test_a_wrong_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_sin(out, x):  # type: ignore[no-untyped-def]
        x.g = out.g * x.sin()

    broken = Rule("sin", torch.sin, wrong_sin, ("r(3, 4)",), True)
    monkeypatch.setitem(BOOK.rules, "sin", broken)
    with pytest.raises((AssertionError, cr.ChainruleError)):
        assert_right(broken, arguments("r(3, 4)"))


def test_a_wrong_rule_is_seen_by_the_comparison_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_sin(out, x):  # type: ignore[no-untyped-def]
        x.g = out.g * x.cos() * (1 + 1e-9)

    broken = Rule("sin", torch.sin, wrong_sin, ("r(3, 4)",), True)
    monkeypatch.setitem(BOOK.rules, "sin", broken)
    monkeypatch.setattr("chainrule.checking.oracles.confirm", lambda d: None)
    with pytest.raises(AssertionError):
        assert_right(broken, arguments("r(3, 4)"))


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
def test_the_variants_apply_to_most_samples() -> None:
    """The awkward shapes are not refused wholesale: else the tests above would be empty."""
    for variant, change in VARIANTS.items():
        taken = [r.name for r in RULES for s in r.samples[:1] if forward_of(r, change(arguments(s)))[0] is not None]
        assert len(taken) > len(RULES) / 3, variant
