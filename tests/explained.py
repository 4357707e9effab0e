"""Explanations of the menagerie, made once for all tests."""

from __future__ import annotations

import datetime
import os
import random
from functools import cache

import torch
from zoo import ENTRIES, SEED, Entry

import chainrule as cr
from chainrule.explain import Explanation

EVERYTHING = os.environ.get("CHAINRULE_SWEEP") == "all"


@cache
def explained(entry: Entry) -> Explanation:
    args = entry.arguments()
    with torch.no_grad():
        output = entry(*args)
    upstream = None if output.ndim == 0 else torch.randn(output.shape, dtype=output.dtype)
    torch.manual_seed(SEED)
    return cr.derive(entry.function, *args, upstream=upstream).explain()


def of_today(count: int) -> list[Entry]:
    """So many entries, others every day; all of them with CHAINRULE_SWEEP=all."""
    order = random.Random(datetime.date.today().toordinal()).sample(ENTRIES, len(ENTRIES))
    return order if EVERYTHING else order[:count]
