"""The entries of torch's operator database: which there are, a part of them, and what each is about."""

from __future__ import annotations

import functools
import math
import random
import warnings
from collections.abc import Iterable
from typing import Any

import torch

from chainrule.errors import ChainruleError
from chainrule.recording.calls import SYNONYMS, operation_name
from chainrule.rules import BOOK
from chainrule.rules.families import family_of

OPENED, NO_GRADIENT = "opened by torch", "no gradient"  # families of entries that no file of rules is about
NO_RULE = "without a rule"
# The entries that there is no rule for, and why.
KNOWN = {
    "as_strided_scatter": "torch's own gradient of it is wrong: with x of 4 elements, "
    "torch.as_strided_scatter(x, torch.ones(2), [2], [1], 2) and the upstream gradient "
    "[1, 2, 3, 4], it is [0, 0, 3, 4], where [1, 2, 0, 0] would be right",
    "to_sparse": "its result is a sparse tensor",
    "sparse.mm.reduce": "its samples are sparse tensors",
    "sparse.sampled_addmm": "its samples are sparse tensors",
}  # fmt: skip
_APART = {"normal": "random", "bernoulli": "random", "zero_": NO_GRADIENT}  # the recorder knows these itself


def silence() -> warnings.catch_warnings[None]:
    """Torch's own database warns of what it tests."""
    return warnings.catch_warnings(action="ignore")


@functools.cache
def entries() -> dict[str, Any]:
    """The differentiable entries of torch's operator database, by name."""
    try:
        with silence():
            from torch.testing._internal.common_methods_invocations import op_db
    except ModuleNotFoundError as error:
        raise ChainruleError(f"torch's operator database needs {error.name}; run pip install {error.name}") from error
    found = (op for op in op_db if op.supports_autograd and torch.float64 in op.dtypes)
    return {op.name + (f".{op.variant_test_name}" if op.variant_test_name else ""): op for op in found}


def chosen(names: Iterable[str], part: str = "1:1") -> list[str]:
    """A share of the names, chosen by a seed: `"7:0.1"` is a tenth of them.

    >>> chosen("abcdefghij", "7:0.3") == chosen("abcdefghij", "7:0.3"), len(chosen("abcdefghij", "7:0.3"))
    (True, 3)
    """
    mixed = sorted(names)
    try:
        seed, share = int(part.partition(":")[0]), float(part.partition(":")[2])
    except ValueError:
        raise ChainruleError(f"{part!r} names no part of the entries; write SEED:SHARE, such as 7:0.1") from None
    random.Random(seed).shuffle(mixed)
    return mixed[: math.ceil(share * len(mixed))]


def named(parts: Iterable[str]) -> list[str]:
    """The entries of these names; a name that there is none of stands for every entry that has it in its own."""
    found: dict[str, None] = {}
    for part in parts:
        own = [n for n in entries() if n == part] or [n for n in entries() if part in n]
        if not own:
            raise ChainruleError(f"torch's operator database has no differentiable entry {part!r}")
        found |= dict.fromkeys(own)
    return list(found) or list(entries())


def family(entry: str) -> str:
    """The family of the rule or opening that an entry is about; of what torch itself puts together, OPENED.

    >>> family("nn.functional.conv2d"), family("masked.mean"), family("floor"), family("to_sparse")
    ('convolution', 'opened by torch', 'no gradient', 'without a rule')
    """
    op = entries()[entry]
    room, _, own = op.name.rpartition(".")
    if entry in KNOWN:
        return NO_RULE
    if op.name in _APART:
        return _APART[op.name]
    whole = room != "masked"  # those are put together in Python from operations of the same names
    names = [operation_name(op.op), SYNONYMS.get(own, own), f"{room}_{own}"] if whole else []
    opened = {getattr(f, "__name__", ""): replacement for f, replacement in BOOK.openings.items()}
    for name in names:
        rule = BOOK.find(name)
        if rule is not None or name in opened:
            return family_of(rule.backward if rule is not None else opened[name])
        if name in BOOK.constants:
            return NO_GRADIENT
    return OPENED
