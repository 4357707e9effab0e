"""One call of an operation of the book, derived: what a card shows and checks."""

from __future__ import annotations

import inspect
import linecache
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from chainrule.derivation import Derivation
from chainrule.deriving import derive
from chainrule.rules import Rule
from chainrule.rules.samples import arguments, kept

# What is tried, in this order, on functions that have no samples of their own: those recorded as their parts.
TRIED = (
    "r(3, 4)", "s(3, 3)", "r(2, 3, 6)", "r(3, 4), 2", "r(2, 3, 6, 6), 2", "r(2, 3, 6, 6, 6), 2",
    "r(2, 3, 6, 6), 2, (3, 3)", "r(2, 3, 6, 6, 6), 2, (3, 3, 3)", "r(3, 4), u(3, 4)", "r(3, 4), r(3, 4)",
    "r(3, 4), i(2, 3, 4)", "r(3, 4), i(4, 3)", "r(3, 4), 0.2, True", "r(3, 4), 2, 0, 1.0", "r(3), r(2)", "i(5, 3), r(5, 4)",
    "r(5, 4), i(5, 3)", "r(5, 4), i(5, 3), torch.tensor([0, 2])", "r(3, 4), r(3, 4), r(3, 4)", "r(3, 4), r(5, 4), i(5, 3)",
    "r(16), 8, return_complex=True", "z(5, 4), 8", "r(3, 3), p(3)", "r(3, 3), r(3), r(3, 2)", "r(3, 2), s(3, 3)",
    "r(3, 2), *torch.linalg.lu_factor(r(3, 3))", "r(2, 3, 6, 6), r(4, 3, 2, 2), r(4)", "r(5, 2, 3), r(2, 3, 4), r(4)",
    "r(3, 4), r(3, 4), -1, torch.float64", "r(3, 4), (4,), p(4), r(4), 1e-5",
    "r(2, 3, 4), [3, 4]", "r(6, 4, 6, 4), r(6, 4)", "r(3, 4), True, True", "r(2, 3, 4), r(2, 3, 4), r(2, 3, 4)",
    "r(2, 1, 3, 4), r(2, 1, 3, 4), r(2, 1, 3, 4)", "r(2, 6, 5), p(6), r(6), 2, 6, 5, 2, 1e-5",
    "r(4, 3), None, None, p(3), r(3), True, 0.1, 1e-5, False", "r(4, 3), p(3), r(3), None, None, True, 0.1, 1e-5, False",
    "r(4, 3), p(3), r(3), None, None, True, 0.1, 1e-5", "r(4, 3), p(3), r(3), True, 0.1, 1e-5",
    "r(4, 3), p(3), r(3), r(3), p(3), 0.1, 1e-5",
    "r(2, 4), r(2, 3), r(9, 4), r(9, 3)", "r(2, 4), r(2, 3), r(3, 4), r(3, 3)",
    "r(2, 4), (r(2, 3), r(2, 3)), r(12, 4), r(12, 3)", "r(5, 2, 4), (r(1, 2, 3), r(1, 2, 3)), [r(12, 4), r(12, 3)], False, 1, 0.0, False, False, False",
    "r(5, 2, 4), r(1, 2, 3), [r(9, 4), r(9, 3)], False, 1, 0.0, False, False, False",
    "r(5, 2, 4), r(1, 2, 3), [r(3, 4), r(3, 3)], False, 1, 0.0, False, False, False",
    "r(2, 3, 6), r(4, 3, 2), r(4), [1], [0], [1], False, [0], 1",
    "r(2, 3, 6), r(4, 3, 2), r(4), [1], [0], [1], False, [0], 1, False, False, False, False",
    "r(5, 2, 4).log_softmax(2), torch.tensor([[1, 2], [3, 1]]), torch.tensor([5, 4]), torch.tensor([2, 1])",
    "r(3, 4), r(3, 4), False, None, 1.0, True", "r(3, 4), r(3, 4), True, False, 1e-8, 1",
)  # fmt: skip


@dataclass
class Sample:
    """A call of `function` written as text, with the words of `parameters` for its arguments."""

    function: Any
    text: str
    parameters: list[inspect.Parameter]

    def given(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments by position and by keyword, under their names."""
        args, kwargs = arguments(self.text)
        named: dict[str, Any] = {}
        for position, value in enumerate(args):
            parameter = self._parameter(position)
            several = parameter is None or parameter.kind is parameter.VAR_POSITIONAL
            name = parameter.name if parameter is not None else "arg"
            named[f"{name}{position}" if several else name] = value
        return named, kwargs

    def _parameter(self, position: int) -> inspect.Parameter | None:
        before = self.parameters[: position + 1]
        varying = next((p for p in before if p.kind is p.VAR_POSITIONAL), None)
        return varying or (before[position] if position < len(before) else None)

    def derive(self) -> Derivation:
        """The call, derived with a random upstream gradient."""
        given, kwargs = self.given()
        tensors = {k: v for k, v in kwargs.items() if isinstance(v, torch.Tensor)}
        call = ", ".join([*given, *(f"{k}={k if k in tensors else repr(v)}" for k, v in kwargs.items())])
        given |= tensors
        name = getattr(self.function, "__name__", "operation")
        read = inspect.isgetsetdescriptor(self.function)
        result = f"{next(iter(given))}.{name}" if read else f"operation({call})"
        forms = {word: kept(value) for word, value in given.items() if isinstance(value, torch.Tensor)}
        lines = [f"    {word} = {form.format(word)}\n" for word, form in forms.items() if form]
        head = f"def forward({', '.join(given)}):\n{''.join(lines)}"
        picked = _picked(self._compiled(f"{head}    return {result}\n"), given)
        forward = self._compiled(f"{head}    out = {result}{picked}\n    return out\n")
        output = forward(**given)
        return derive(forward, upstream=torch.randn_like(output), **given)

    def _compiled(self, source: str) -> Callable[..., Any]:
        """`source` as a function with lines, as if it stood in a file of a person's own."""
        space: dict[str, Any] = {"operation": self.function, "torch": torch}
        file = f"<sample of {getattr(self.function, '__name__', 'operation')}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), space)
        forward: Callable[..., Any] = space["forward"]
        return forward


def _picked(forward: Callable[..., Any], given: dict[str, Any]) -> str:
    """How to take, of several results, the first that a gradient flows through; of complex ones the size."""
    with torch.no_grad():
        outputs = forward(**_changed(given, torch.clone))
    if isinstance(outputs, torch.Tensor):
        return ""
    found = [i for i, out in enumerate(outputs) if _continuous(out)]
    if len(found) > 1:
        found = [i for i in found if _flows(forward, given, i)] or found
    return f"[{found[0]}].abs()" if outputs[found[0]].dtype.is_complex else f"[{found[0]}]"


def _continuous(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and (value.dtype.is_floating_point or value.dtype.is_complex)


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, dict):
        return {k: _changed(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_changed(v, change) for v in value])
    return change(value) if _continuous(value) else value


def _flows(forward: Callable[..., Any], given: dict[str, Any], position: int) -> bool:
    """Whether the result at `position` has a gradient that is not zero everywhere."""
    leaves: list[torch.Tensor] = []

    def leaf(tensor: torch.Tensor) -> torch.Tensor:
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1]

    out = forward(**_changed(given, leaf))[position]
    if not out.requires_grad:
        return False
    found = torch.autograd.grad(out.abs().sum(), leaves, allow_unused=True)
    return any(g is not None and bool(g.any()) for g in found)


def of_rule(rule: Rule) -> Sample | None:
    """The first sample of a rule.

    >>> from chainrule.rules import BOOK
    >>> of_rule(BOOK.rules["matmul"]).derive().source().splitlines()[-3:-1]
    ['a.g = out_g @ b.T', 'b.g = a.T @ out_g']
    """
    parameters = list(rule.signature.parameters.values())[1:]
    return Sample(rule.function, rule.samples[0], parameters) if rule.samples else None


def of_opening(function: Any, replacement: Any) -> tuple[Sample, Derivation] | None:
    """The first of the calls in TRIED that `function` takes and that can be derived, if any."""
    parameters = list(inspect.signature(replacement).parameters.values())
    for text in TRIED:
        sample = Sample(function, text, parameters)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                return sample, sample.derive()
        except Exception:  # torch refuses arguments in many ways
            continue
    return None
