"""What an explanation says of a value."""

from __future__ import annotations

import torch

from chainrule.traces.summary import in_words, number


def facts(value: torch.Tensor) -> str:
    """A few numbers about a value; one that is a single number, as it is.

    >>> facts(torch.tensor([[0.25]])), facts(torch.tensor([0.0, 1.0]))
    ('0.25', '0 .. 1, mean 0.5, 50% zeros')
    """
    if value.numel() == 1:
        return number(value, 6)
    return in_words(value) if value.numel() else "no elements"


def first_of(value: torch.Tensor) -> str:
    """Which matrix of a value stands for it, "" where it is no more than one.

    >>> first_of(torch.zeros(2, 3, 4, 4)), first_of(torch.zeros(4, 4))
    ('[0, 0]', '')
    """
    return f"[{', '.join(['0'] * (value.ndim - 2))}]" if any(n != 1 for n in value.shape[:-2]) else ""
