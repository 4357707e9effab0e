"""Random operations: what was drawn becomes an input, so that the derived code reproduces the run."""

import torch
import torch.nn.functional as F

from chainrule.recording.recorder import drawn
from chainrule.rules.book import opening


@opening(F.dropout)
def dropout(input, p=0.5, training=True, inplace=False):
    if not training or p == 0:
        return input
    if inplace:
        return input.mul_(_mask(input, p)).div_(1 - p) if p < 1 else input.mul_(0)
    if p == 1:
        return input * 0
    return input * _mask(input, p) / (1 - p)


@opening(torch.dropout)
def torch_dropout(input, p, train):
    return dropout(input, p, train)


def _mask(x, p):
    """What is kept: drawn as torch draws it, so that a seed gives the run that it would have given."""
    with torch._C.DisableTorchFunction():
        kept = torch.empty_like(x.detach()).bernoulli_(1 - p).bool()
    return drawn(kept, "mask")
