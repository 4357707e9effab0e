"""Every rule of the book over its own samples, and over the same samples in awkward shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from agreement import Leaves, assert_close, run_emitted
from torch import Tensor

import chainrule as cr
from chainrule.rules import BOOK, Rule
from chainrule.rules.book import RuleBook
from chainrule.rules.samples import arguments, kept


def rules_of(book: RuleBook) -> list[Rule]:
    """The rules that the book has by itself; tests may add more."""
    return [r for r in book.rules.values() if r.backward.__module__.startswith("chainrule.rules.")]


RULES = rules_of(BOOK)
BY_CONVENTION = ("ctc_loss", "scale_grad_by_freq")  # the gradient is not the slope of the function, in torch either
SAMPLES = [pytest.param(r, s, id=f"{r.name}: {s}") for r in RULES for s in r.samples]


def over_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(over_tensors(v, change) for v in value)
    if isinstance(value, dict):
        return {k: over_tensors(v, change) for k, v in value.items()}
    return value


def tensors_in(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    over_tensors(value, lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
    return found


def shortened(axis: int, to: int) -> Callable[[Any], Any]:
    """The tensors as long as the longest along `axis` are cut to `to`; indices stay inside."""

    def change(given: Any) -> Any:
        longest = max((t.shape[axis] for t in tensors_in(given) if t.ndim), default=0)

        def cut(t: Tensor) -> Tensor:
            t = t % to if to and t.dtype == torch.int64 else t
            return t.narrow(axis, 0, to) if t.ndim and t.shape[axis] == longest >= to else t

        return over_tensors(given, cut)

    return change


def strided(given: Any) -> Any:
    """The same numbers, laid out in memory in another order, with gaps."""

    def change(t: Tensor) -> Tensor:
        apart = torch.stack([t, t], -1)[..., 0]
        return apart.mT.clone(memory_format=torch.contiguous_format).mT if t.ndim > 1 else apart

    return over_tensors(given, change)


VARIANTS: dict[str, Callable[[Any], Any]] = {
    "first axis of size 1": shortened(0, 1),
    "last axis of size 1": shortened(-1, 1),
    "first axis empty": shortened(0, 0),
    "last axis empty": shortened(-1, 0),
    "strided": strided,
}


def differentiable(t: Tensor) -> bool:
    return t.dtype.is_floating_point or t.dtype.is_complex


def forward_of(rule: Rule, given: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[..., Tensor] | None:
    """The call of the rule's operation as a function of one tensor; None where torch itself refuses it."""
    args, kwargs = given
    function = rule.function if callable(rule.function) else lambda x: getattr(x, rule.function.__name__)

    forms = [keeping(t) for t in tensors_in(given)]

    def one(*args: Any, **kwargs: Any) -> Tensor:
        form = iter(forms)
        args, kwargs = over_tensors((args, kwargs), lambda t: next(form)(t))
        out = function(*args, **kwargs)
        if isinstance(out, Tensor):
            return torch.view_as_real(out.resolve_conj()) if out.is_complex() else out
        parts = [without_phase(part) * (i + 1) for i, part in enumerate(out) if not integral(part)]
        return torch.cat([part.flatten() for part in parts])

    try:
        with torch.no_grad():
            one(*args, **kwargs)
    except (RuntimeError, IndexError, ValueError):
        return None
    leaves = iter([t.clone().requires_grad_() for t in tensors_in(given) if differentiable(t)])
    try:
        args, kwargs = over_tensors(given, lambda t: next(leaves) if differentiable(t) else t)
        one(*args, **kwargs).sum().backward()
    except RuntimeError as error:
        return one if says_no_derivative(error) else None
    return one


def keeping(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """The function that keeps a symmetric or triangular matrix one, for the finite differences."""
    text = kept(tensor)
    form: Callable[[Tensor], Tensor] = eval("lambda x: " + (text.format("x") or "x"))
    return form


def without_phase(out: Tensor) -> Tensor:
    """Eigenvectors by the sizes of their entries, which no phase changes."""
    return out.abs() if out.dtype.is_complex else out


def integral(out: Tensor) -> bool:
    return not (out.dtype.is_floating_point or out.dtype.is_complex)


def says_no_derivative(error: Exception) -> bool:
    """Whether autograd tells that an argument has no gradient by definition."""
    return "not differentiable with respect to" in str(error)


def assert_right(rule: Rule, given: tuple[tuple[Any, ...], dict[str, Any]], verify: bool) -> None:
    forward = forward_of(rule, given)
    if forward is None:
        assert not verify, "torch refuses the sample"
        return
    args, kwargs = given
    with torch.no_grad():
        output = forward(*args, **kwargs)
    upstream = torch.randn_like(output)
    d = cr.derive(forward, *args, upstream=upstream, wrt=None, **kwargs)
    assert d.fallbacks == []
    assert_close(d.output, output)
    tolerance = 1e-10 if output.dtype == torch.float64 else 1e-6
    with Leaves(d, only_given=True) as leaves:
        truth = dict(zip(leaves.names, leaves.gradients(forward(*args, **kwargs), upstream), strict=True))
    for name, gradient in truth.items():
        assert_close(d.grads[name], gradient, tolerance)
    for tensor, gradient in d.pairs():
        if gradient is None:
            assert_no_gradient(forward, args, kwargs, tensor)
    inputs = [d[name].value.clone() for name in d.inputs]
    emitted_output, emitted = run_emitted(d, *inputs, upstream.clone())
    assert_close(emitted_output, output)
    for name, gradient in truth.items():
        assert_close(emitted[name], gradient, tolerance)
    if verify:
        verdict = d.verify()
        assert verdict, str(verdict)


def assert_no_gradient(forward: Callable[..., Tensor], args: Any, kwargs: Any, tensor: Tensor) -> None:
    """Autograd, too, gives `tensor` none."""
    tensor.requires_grad_(True)
    try:
        output = forward(*args, **kwargs)
        if output.requires_grad:
            (found,) = torch.autograd.grad(output.sum(), tensor, allow_unused=True)
            assert found is None or not found.any()
    except RuntimeError as error:
        assert says_no_derivative(error)
    finally:
        tensor.requires_grad_(False)


@pytest.mark.parametrize("rule", [pytest.param(r, id=r.name) for r in RULES])
def test_every_rule_has_a_sample(rule: Rule) -> None:
    assert rule.samples


@pytest.mark.parametrize(("rule", "sample"), SAMPLES)
def test_rule_is_right(rule: Rule, sample: str) -> None:
    assert_right(rule, arguments(sample), verify=not any(word in f"{rule.name}: {sample}" for word in BY_CONVENTION))


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning", "ignore:.*first appears in:RuntimeWarning")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("rule", "sample"), SAMPLES)
def test_rule_is_right_in_awkward_shapes(rule: Rule, sample: str, variant: str) -> None:
    try:
        assert_right(rule, VARIANTS[variant](arguments(sample)), verify=False)
    except cr.ChainruleError as error:
        assert isinstance(error.__cause__, ZeroDivisionError), error  # a share of no classes


def test_a_wrong_rule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_sin(out, x):  # type: ignore[no-untyped-def]
        x.g = out.g * x.sin()

    broken = Rule("sin", torch.sin, wrong_sin, ("r(3, 4)",), True)
    monkeypatch.setitem(BOOK.rules, "sin", broken)
    with pytest.raises((AssertionError, cr.ChainruleError)):
        assert_right(broken, arguments("r(3, 4)"), verify=True)


def test_a_wrong_rule_is_seen_by_the_comparison_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_sin(out, x):  # type: ignore[no-untyped-def]
        x.g = out.g * x.cos() * (1 + 1e-9)

    broken = Rule("sin", torch.sin, wrong_sin, ("r(3, 4)",), True)
    monkeypatch.setitem(BOOK.rules, "sin", broken)
    monkeypatch.setattr("chainrule.checking.oracles.confirm", lambda d: None)
    with pytest.raises(AssertionError):
        assert_right(broken, arguments("r(3, 4)"), verify=True)


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
def test_the_variants_apply_to_most_samples() -> None:
    """The awkward shapes are not refused wholesale: else the tests above would be empty."""
    for variant, change in VARIANTS.items():
        taken = [r.name for r in RULES for s in r.samples[:1] if forward_of(r, change(arguments(s))) is not None]
        assert len(taken) > len(RULES) / 3, variant
