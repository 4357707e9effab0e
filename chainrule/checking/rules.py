"""What a rule is held to: autograd, finite differences, its emitted code, and shapes that are easily forgotten."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from chainrule.checking.closeness import Leaves, assert_close
from chainrule.checking.emitted import own_functions
from chainrule.derivation import Derivation
from chainrule.deriving import derive
from chainrule.errors import ChainruleError
from chainrule.rules import Rule
from chainrule.rules.samples import kept

Given = tuple[tuple[Any, ...], dict[str, Any]]  # the arguments of a call, by position and by keyword


def over_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with its tensors changed, in lists, tuples and dictionaries too."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(over_tensors(v, change) for v in value)
    if isinstance(value, dict):
        return {k: over_tensors(v, change) for k, v in value.items()}
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in `value`, in order."""
    found: list[Tensor] = []

    def note(t: Tensor) -> Tensor:
        found.append(t)
        return t

    over_tensors(value, note)
    return found


# -- awkward shapes --------------------------------------------------------------------------------


def _shortened(axis: int, to: int) -> Callable[[Any], Any]:
    """The tensors as long as the longest along `axis` are cut to `to`; indices stay inside."""

    def change(given: Any) -> Any:
        longest = max((t.shape[axis] for t in tensors_in(given) if t.ndim), default=0)

        def cut(t: Tensor) -> Tensor:
            t = t % to if to and t.dtype == torch.int64 else t
            return t.narrow(axis, 0, to) if t.ndim and t.shape[axis] == longest >= to else t

        return over_tensors(given, cut)

    return change


def _strided(given: Any) -> Any:
    """The same numbers, laid out in memory in another order, with gaps."""

    def change(t: Tensor) -> Tensor:
        apart = torch.stack([t, t], -1)[..., 0]
        return apart.mT.clone(memory_format=torch.contiguous_format).mT if t.ndim > 1 else apart

    return over_tensors(given, change)


VARIANTS: dict[str, Callable[[Any], Any]] = {
    "first axis of size 1": _shortened(0, 1),
    "last axis of size 1": _shortened(-1, 1),
    "first axis empty": _shortened(0, 0),
    "last axis empty": _shortened(-1, 0),
    "strided": _strided,
}


# -- the call as a function of one tensor ----------------------------------------------------------


def forward_of(
    rule: Rule, given: Given, followed: bool = False
) -> tuple[Callable[..., Tensor] | None, Exception | None]:
    """The call of the rule's function, its results put together to one tensor; or why the function refuses it.

    With `followed`, a call that autograd sees no gradient in counts as refused: the norm of an empty matrix.
    """
    function = rule.function if callable(rule.function) else lambda x: getattr(x, rule.function.__name__)
    forms = [_keeping(t) for t in tensors_in(given)]

    def one(*args: Any, **kwargs: Any) -> Tensor:
        form = iter(forms)
        args, kwargs = over_tensors((args, kwargs), lambda t: next(form)(t))
        out = function(*args, **kwargs)
        if isinstance(out, Tensor):
            return torch.view_as_real(out.resolve_conj()) if out.is_complex() else out
        parts = [part.abs() if part.is_complex() else part for part in out if _continuous(part)]  # without the phase
        return torch.cat([(part * (i + 1)).flatten() for i, part in enumerate(parts)])

    if inspect.isfunction(function):
        one.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # the person's names
    args, kwargs = given
    try:
        with torch.no_grad():
            one(*args, **kwargs)
        leaves = iter([t.clone().requires_grad_() for t in tensors_in(given) if _continuous(t)])
        args, kwargs = over_tensors(given, lambda t: next(leaves) if _continuous(t) else t)
        output = one(*args, **kwargs)
        if output.requires_grad or followed:
            output.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # a person's function refuses in its own ways
        return (one, None) if _says_no_derivative(error) else (None, error)
    return one, None


def _keeping(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """The function that keeps a symmetric or triangular matrix one, for the finite differences."""
    form: Callable[[Tensor], Tensor] = eval("lambda x: " + (kept(tensor).format("x") or "x"))
    return form


def _continuous(t: Tensor) -> bool:
    return t.dtype.is_floating_point or t.dtype.is_complex


def _says_no_derivative(error: Exception) -> bool:
    """Whether autograd tells that an argument has no gradient by definition."""
    return "not differentiable with respect to" in str(error)


# -- the comparison --------------------------------------------------------------------------------


def assert_right(rule: Rule, given: Given, differences: bool = True) -> bool:
    """Raise AssertionError unless the rule is right for one call; False where the function refuses the call.

    The gradients of the derived code and of its emitted text, with a random upstream gradient, are
    compared with autograd's, and along random directions with central differences in float64.
    """
    forward, refused = forward_of(rule, given, followed=not differences)
    if forward is None:
        if differences:
            raise AssertionError(f"{rule.name} refuses the sample: {refused}") from refused
        return False
    args, kwargs = given
    with torch.no_grad():
        output = forward(*args, **kwargs)
    upstream = torch.randn_like(output)
    d = derive(forward, *args, upstream=upstream, wrt=None, **kwargs)
    if d.fallbacks:
        raise AssertionError(f"{rule.name} takes a step from autograd: {', '.join(d.fallbacks)}")
    assert_close(d.output, output, what="the output")
    tolerance = 1e-10 if output.dtype == torch.float64 else 1e-6
    truth = _by_autograd(d, forward, given, upstream)
    for name, gradient in truth.items():
        assert_close(d.grads[name], gradient, tolerance, f"{rule.name}: the gradient of {name}")
    for tensor, gradient in d.pairs():
        if gradient is None:
            _assert_no_gradient(forward, given, tensor)
    _assert_emitted(rule, d, output, upstream, truth, tolerance)
    if differences:
        verdict = d.verify()
        if not verdict:
            raise AssertionError(f"{rule.name}: the rule is not the slope of the function\n{verdict}")
    return True


def _by_autograd(
    d: Derivation, forward: Callable[..., Tensor], given: Given, upstream: Tensor
) -> dict[str, Tensor | None]:
    """Autograd's gradients of the function as it is written; none where autograd cannot follow it."""
    args, kwargs = given
    with Leaves(d, only_given=True) as leaves, torch.enable_grad():
        output = forward(*args, **kwargs)
        if not output.requires_grad:
            return {}
        return dict(zip(leaves.names, leaves.gradients(output, upstream), strict=True))


def _assert_emitted(
    rule: Rule, d: Derivation, output: Tensor, upstream: Tensor, truth: dict[str, Tensor | None], tolerance: float
) -> None:
    """The emitted function, run alone, gives the same."""
    space = own_functions(d.program)
    exec(compile(d.source("function"), "<emitted>", "exec"), space)
    inputs = [d[name].value.clone() for name in d.inputs]
    emitted_output, emitted = space["forward_and_backward"](*inputs, upstream.clone())
    assert_close(emitted_output, output, what="the output of the emitted code")
    for name, gradient in truth.items():
        assert_close(emitted[name], gradient, tolerance, f"{rule.name}, emitted code: the gradient of {name}")


def _assert_no_gradient(forward: Callable[..., Tensor], given: Given, tensor: Tensor) -> None:
    """Autograd, too, gives `tensor` none."""
    args, kwargs = given
    tensor.requires_grad_(True)
    try:
        output = forward(*args, **kwargs)
        if output.requires_grad:
            (found,) = torch.autograd.grad(output.sum(), tensor, allow_unused=True)
            if found is not None and found.any():
                raise AssertionError(f"an input {tuple(tensor.shape)} has no gradient by the rule, but one by autograd")
    except RuntimeError as error:
        if not _says_no_derivative(error):
            raise
    finally:
        tensor.requires_grad_(False)


def assert_variant(rule: Rule, given: Given, variant: str) -> bool:
    """The same for a call in awkward shapes, whose slope is not measured; False where the function refuses it."""
    try:
        return assert_right(rule, VARIANTS[variant](given), differences=False)
    except ChainruleError as error:
        if isinstance(error.__cause__, ZeroDivisionError):  # a share of nothing
            return False
        raise
