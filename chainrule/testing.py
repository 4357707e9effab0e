"""Assertions for people's own tests."""

from __future__ import annotations

from typing import Any

from chainrule.checking.compare import check


def assert_gradients(code: Any, *args: Any, **kwargs: Any) -> None:
    """Raise AssertionError, with the diagnosis as its message, unless every gradient is right.

    >>> import torch
    >>> w = torch.tensor([1., 2.])
    >>> def step(x):
    ...     w.g = x
    ...     return (x * w).sum()
    >>> assert_gradients(step, torch.ones(2))
    """
    report = check(code, *args, **kwargs)
    if not report.ok:
        raise AssertionError(f"hand-written gradients are wrong\n{report}")
