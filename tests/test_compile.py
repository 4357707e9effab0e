"""Compiled steps: the whole menagerie, the optimisers, and what a person does with a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo import ENTRIES, SEED, Entry

import chainrule as cr

DTYPE = torch.float64


def scalar(entry: Entry) -> Callable[..., Tensor]:
    """The entry with a weighted sum behind it, so that its output is a loss."""

    def forward(*args: Any) -> Tensor:
        output = entry.function(*args)
        weights = torch.linspace(-1.0, 1.0, max(output.numel(), 1), dtype=output.dtype)[: output.numel()]
        return (output * weights.reshape(output.shape)).sum() if output.ndim else output * 1.5

    return forward


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_gradients_of_the_menagerie(entry: Entry) -> None:
    args = entry.arguments(5)
    forward = scalar(entry)
    torch.manual_seed(SEED)
    d = cr.derive(forward, *args)
    step = cr.compile(forward, *args)
    for _ in range(2):
        torch.manual_seed(SEED)
        loss, grads = step(*args)
        torch.testing.assert_close(loss, d.output, rtol=1e-9, atol=1e-11)
        for name, expected in d.grads.items():
            if name in grads and expected is not None:
                torch.testing.assert_close(grads[name], expected, rtol=1e-7, atol=1e-9)
        assert {n for n, g in d.grads.items() if g is not None} <= set(grads)
