"""Assertions for people's own tests."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from chainrule.checking.rules import VARIANTS, Given, assert_right, assert_variant, over_tensors
from chainrule.diagnosis.check import check
from chainrule.errors import ChainruleError
from chainrule.recording.calls import operation_name
from chainrule.rules import BOOK, Rule
from chainrule.rules.samples import arguments
from chainrule.run import double


def assert_gradients(code: Any, *args: Any, **kwargs: Any) -> None:
    """Raise AssertionError, with the diagnosis as its message, unless every gradient that `code` writes is right.

    The message begins with the findings, each as `file:line: cause message`; the table of gradients follows.
    Arguments and errors are those of `chainrule.check`.

    >>> import torch
    >>> w = torch.tensor([1., 2.])
    >>> def step(x):
    ...     w.g = x
    ...     return (x * w).sum()
    >>> assert_gradients(step, torch.ones(2))
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    report = check(code, *args, **kwargs)
    if not report.ok:
        raise AssertionError(report.findings_first())


def grade(code: Any, *args: Any, points: float = 1.0, **kwargs: Any) -> float:
    """`points` times the share of the gradients that are right; for notebooks that are marked by a program.

    A gradient that is wrong only because it was computed from a wrong one counts as right. Code that raises, or
    that leaves no gradient, gets 0.0. Nothing is printed: what the code prints is dropped, and its warnings are.

    Raises ChainruleError if `points` is negative or no finite number.

    >>> import torch
    >>> w, b = torch.ones(2), torch.ones(1)
    >>> def step(x):
    ...     w.g = 2 * x
    ...     b.g = torch.ones(1)
    ...     return ((x * w).sum() + b).sum()
    >>> grade(step, torch.ones(2), points=10)
    5.0
    """
    if not math.isfinite(points) or points < 0:
        raise ChainruleError(f"grade: points is {points}; give a number from 0 up")
    dropped = io.StringIO()
    with contextlib.redirect_stdout(dropped), contextlib.redirect_stderr(dropped), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = check(code, *args, **kwargs)
        except (Exception, SystemExit):  # whatever the code under test does, exit() too, is its own mistake
            return 0.0
    total = len(report.rows)
    if not total:
        return 0.0
    mistakes = len({finding.name for finding in report.findings})
    if not report.findings:
        mistakes = sum(row.status not in ("right", "close") for row in report.rows)
    return float(points) * max(0.0, 1 - mistakes / total)


def assert_rule(function: Callable[..., Any], samples: Iterable[Any]) -> None:
    """Raise AssertionError unless the rule of `function` is right for every sample, as the book's own rules are.

    A sample is a tuple of arguments, a pair (arguments, keywords), or text such as `"r(3, 4), dim=0"`, in which r
    stands for normal numbers (`chainrule.rules.samples` has the other letters). On each, the gradients by the rule
    and by the code that is emitted from it are compared with autograd's, where autograd can follow the function,
    and with central differences in float64; then again where axes have size 1 or 0 or lie strided in memory, as
    far as the function takes such arguments.

    >>> import chainrule as cr
    >>> def squared_length(x): return (x * x).sum(-1)
    >>> @cr.rule(squared_length)
    ... def squared_length_rule(out, x):
    ...     x.g = 2 * x * out.g[..., None]
    >>> assert_rule(squared_length, ["r(3, 4)", (torch.ones(5),)])

    A rule that is meant to be something else than the slope, such as a straight-through estimator, is refused,
    with the largest difference.
    """
    rule = _rule_of(function)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for sample in samples:
            given = _given(sample)
            _on(sample, rule, given, "")
            for variant in VARIANTS:
                _on(sample, rule, given, variant)


def _on(sample: Any, rule: Rule, given: Given, variant: str) -> None:
    """The comparison on one sample, told in the message if it fails."""
    try:
        if variant:
            assert_variant(rule, given, variant)
        else:
            assert_right(rule, given)
    except AssertionError as error:
        shapes = over_tensors(given, lambda t: tuple(t.shape))  # type: ignore[arg-type, return-value]
        where = sample if isinstance(sample, str) else f"shapes {shapes[0]} {shapes[1] or ''}".rstrip()
        raise AssertionError(f"{error}\nsample: {where}{f', {variant}' if variant else ''}") from None


def _rule_of(function: Callable[..., Any]) -> Rule:
    rule = BOOK.of_code(getattr(function, "__code__", None)) or BOOK.find(operation_name(function))
    if rule is None:
        name = getattr(function, "__name__", function)
        raise ChainruleError(f"{name} has no rule; write one with @chainrule.rule({name})")
    return rule


def _given(sample: Any) -> Given:
    """The arguments of a sample, in float64."""
    if isinstance(sample, str):
        return arguments(sample)
    pair = len(sample) == 2 and isinstance(sample[0], tuple) and isinstance(sample[1], dict)
    given: Given = over_tensors(sample if pair else (tuple(sample), {}), double)
    return given
