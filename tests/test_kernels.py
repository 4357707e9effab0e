"""The second shelf of the rule book: its steps are torch's own kernels, and give autograd's gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import Leaves, assert_close
from torch import Tensor

import chainrule as cr
from chainrule.checking.rules import VARIANTS, Given, forward_of
from chainrule.deriving import derivation_with
from chainrule.rules import BOOK, KERNELS, Rule
from chainrule.rules.samples import arguments

OF_SHELF = [pytest.param(r, s, id=f"{r.name}: {s}") for r in KERNELS.rules.values() for s in r.samples]
TAKEN_OVER = [
    pytest.param(r, s, id=f"{r.name}: {s}")
    for r in BOOK.rules.values()
    if r.backward.__module__.startswith("chainrule.rules.")
    and (r.name in KERNELS.rules or r.function in KERNELS.openings)
    for s in r.samples
]
UNFOLLOWED = "grad_and_value"


def first_of(rule: Rule) -> Callable[..., Tensor]:
    """The rule's function; of several results the first, which the others serve."""

    def value(*args: Any, **kwargs: Any) -> Tensor:
        out = rule.function(*args, **kwargs)
        return out if isinstance(out, Tensor) else out[0]

    return value


def assert_as_autograd(forward: Callable[..., Tensor], given: Given, tolerance: float = 1e-10) -> cr.Derivation:
    """The call derived with kernels gives autograd's gradients."""
    args, kwargs = given
    with torch.no_grad():
        upstream = torch.randn_like(forward(*args, **kwargs))
    d = derivation_with(KERNELS, forward, *args, upstream=upstream, **kwargs)
    assert d.fallbacks == []
    with Leaves(d, only_given=True) as leaves:
        expected = forward(*args, **kwargs)
        truth = dict(zip(leaves.names, leaves.gradients(expected, upstream), strict=True))
    assert_close(d.output, expected, tolerance, "the output")
    for name, gradient in truth.items():
        assert_close(d.grads[name], gradient, tolerance, f"the gradient of {name}")
    return d


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("rule", "sample"), OF_SHELF)
def test_kernel_is_right(rule: Rule, sample: str, dtype: torch.dtype) -> None:
    assert_as_autograd(first_of(rule), arguments(sample, dtype), 1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize(("rule", "sample"), TAKEN_OVER)
def test_what_the_shelf_takes_over_is_right(rule: Rule, sample: str) -> None:
    assert_as_autograd(first_of(rule), arguments(sample))


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("rule", "sample"), TAKEN_OVER)
def test_kernels_are_right_in_awkward_shapes(rule: Rule, sample: str, variant: str) -> None:
    given = VARIANTS[variant](arguments(sample))
    forward, _ = forward_of(rule, given, followed=True)
    if forward is None:  # torch refuses the call
        return
    try:
        assert_as_autograd(forward, given)
    except cr.ChainruleError as error:
        if not isinstance(error.__cause__, ZeroDivisionError):  # a share of nothing, left to the ordinary rule
            raise


# -- attention -------------------------------------------------------------------------------------

FLASH = "_scaled_dot_product_flash_attention_for_cpu"
Q, K = "r(2, 4, 5, 8)", "r(2, 4, 7, 8)"


@pytest.mark.parametrize(
    ("sample", "fused"),
    [
        (f"{K}, {K}, {K}, is_causal=True", True),
        (f"{Q}, {K}, {K}, scale=0.4", True),
        (f"{Q}, {K}, {K}, m(5, 7) | (torch.arange(7) == 0)", True),
        (f"{Q}, {K}, {K}, r(5, 7)", True),
        (f"{Q}, {K}, {K}, r(2, 1, 5, 7), scale=0.4", True),
        (f"{Q}, {K}, {K}, r(2, 4, 5, 7).requires_grad_()", False),
        (f"{Q}, r(2, 2, 7, 8), r(2, 2, 7, 8), enable_gqa=True", True),
        ("r(4, 5, 8), r(4, 7, 8), r(4, 7, 8)", False),
        ("r(2, 4, 5, 8), r(2, 4, 7, 8), r(2, 4, 7, 3)", False),
    ],
)
def test_attention(sample: str, fused: bool) -> None:
    d = assert_as_autograd(F.scaled_dot_product_attention, arguments(sample))
    assert (FLASH in operations(d)) is fused


def test_attention_that_looks_nowhere() -> None:
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(5, 5, dtype=torch.bool).tril(-1)  # the first query may look at no key
    assert_as_autograd(F.scaled_dot_product_attention, ((q, k, v, mask), {}))


def operations(d: cr.Derivation) -> Counter[str]:
    return Counter(n.meta["operation"] for n in d.graph.nodes)
