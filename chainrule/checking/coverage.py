"""How much of PyTorch the rule book covers, measured on torch's own operator database.

Each differentiable entry of `op_db` is derived on all its strided float64 samples, as the sum of its
outputs times fixed weights, and compared with autograd.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import torch

import chainrule as cr
from chainrule.checking.entries import KNOWN, entries, family, silence
from chainrule.errors import ChainruleError

RULES, STEP, REFUSED, WRONG, CRASHED = STATUSES = "rules", "autograd step", "refused", "wrong", "crashed"
TOLERANCE = 1e-7  # relative to the largest element of autograd's gradient


@dataclass
class Result:
    """What came out for one entry of the database."""

    entry: str
    status: str  # one of STATUSES
    samples: int = 0
    fallbacks: list[str] = field(default_factory=list)
    family: str = ""
    message: str = ""  # of the first sample that went wrong
    failed: list[int] = field(default_factory=list)  # which samples went wrong

    @property
    def ok(self) -> bool:
        return self.status not in (WRONG, CRASHED)

    @property
    def reason(self) -> str:
        """Why the entry is not covered by rules."""
        known = KNOWN.get(self.entry)
        return known if known and self.ok and self.status != RULES else self.message or ", ".join(self.fallbacks)


def samples(op: Any) -> Iterator[Any]:
    """The strided float64 samples of an entry."""
    torch.manual_seed(0)
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        if all(t.layout is torch.strided for t in _tensors((sample.input, sample.args, sample.kwargs))):
            yield sample


def measure(name: str, emit: bool = False, only: int | None = None) -> Result:
    """Derive an entry on its samples and compare with autograd; with `emit`, run its emitted code as well."""
    op = entries()[name]
    result = Result(name, RULES, family=family(name))
    with silence():
        for number, sample in enumerate(samples(op)):
            if only is None or number == only:
                result.samples += 1
                _note(result, number, *_outcome(op, sample, result, emit))
    if not result.samples and only is None:
        result.status, result.message = REFUSED, "its samples are sparse tensors"
    if result.status == RULES and result.fallbacks:
        result.status = STEP
    return result


def _outcome(op: Any, sample: Any, result: Result, emit: bool) -> tuple[str, str]:
    """The status of one sample, and what is wrong with it."""
    try:
        message = _one(op, sample, result, emit)
        return WRONG if message else RULES, message
    except ChainruleError as error:
        return REFUSED if "which cannot be followed" in str(error) else CRASHED, str(error)
    except Exception as error:  # whatever went wrong is a line of the table
        return CRASHED, f"{type(error).__name__}: {error}"


def _note(result: Result, number: int, status: str, message: str) -> None:
    """Keep the worst status, and the first message."""
    result.status = max(result.status, status, key=STATUSES.index)
    if message:
        result.message = result.message or f"sample {number}: {message}"
        result.failed.append(number)


def measure_all(names: Iterable[str], emit: bool = False, processes: int | None = None) -> Iterator[Result]:
    """Measure many entries, in as many processes as there are cores."""
    jobs = [(name, emit) for name in names]
    entries()  # imported once, before the processes part
    with get_context("fork").Pool(
        processes or os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.imap_unordered(_measure, jobs)


def _measure(job: tuple[str, bool]) -> Result:
    return measure(*job)


def _one(op: Any, sample: Any, result: Result, emit: bool) -> str:
    """Derive one sample; what is wrong with it, or nothing."""

    def forward(*tensors: torch.Tensor) -> torch.Tensor:
        it = iter(tensors)
        given = _refilled((sample.input, sample.args, sample.kwargs), it)
        torch.manual_seed(1)
        out = sample.output_process_fn_grad(op.op(given[0], *given[1], **given[2]))
        return weighted(out)

    leaves = [
        copy.deepcopy(t.detach()).requires_grad_(t.requires_grad)  # laid out in memory as it was
        for t in _tensors((sample.input, sample.args, sample.kwargs))
    ]
    wanted = [t for t in leaves if t.requires_grad]
    loss = forward(*leaves)
    if not loss.requires_grad:
        return ""  # nothing to differentiate: an empty result, or one of whole numbers
    truth = torch.autograd.grad(loss, wanted, allow_unused=True)
    try:
        d = cr.derive(forward, *leaves)
    except ChainruleError as error:
        if "depends on no input that could have a gradient" in str(error) and not any(_size(g) for g in truth):
            return ""  # rounding and the like: autograd gives zeros
        raise
    result.fallbacks = sorted({*result.fallbacks, *d.fallbacks})
    ours = {id(t): g for t, g in d.pairs()}
    for tensor, right in zip(wanted, truth, strict=True):
        found = ours.get(id(tensor))
        if _difference(found, right) > TOLERANCE * (1 + _size(right)):
            return f"the gradient {tuple(tensor.shape)} differs by {_difference(found, right):.3g}"
    if emit:
        d.source("function")
    return ""


def weighted(out: Any) -> torch.Tensor:
    """The sum of the floating outputs times fixed weights; of complex ones, the real part."""
    total = torch.zeros((), dtype=torch.float64)
    for part in _tensors(out):
        part = part.to(torch.complex64) if part.dtype == torch.complex32 else part  # which torch cannot sum
        if part.dtype.is_floating_point or part.dtype.is_complex:
            with torch.no_grad(), torch._C.DisableTorchFunction():
                weights = torch.linspace(0.5, 1.5, max(part.numel(), 1), dtype=torch.float64)[: part.numel()].cos()
                weights = weights.reshape(part.shape).to(part.dtype)
                weights = weights * (1 + 0.5j) if part.dtype.is_complex else weights
            term = (part * weights).sum()
            total = total + (term.real if part.dtype.is_complex else term)
    return total


def _size(value: torch.Tensor | None) -> float:
    if value is None or not value.numel():
        return 0.0
    finite = value[torch.isfinite(value)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _difference(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> float:
    if ours is None or theirs is None:
        other = theirs if ours is None else ours
        return 0.0 if other is None else _size(other)
    if not ours.numel():
        return 0.0
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    gaps = (ours - theirs).abs()[~same]
    return float(gaps.nan_to_num(nan=float("inf")).max()) if gaps.numel() else 0.0


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, tuple | list) else []


def _refilled(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return next(tensors)
    if isinstance(value, dict):
        return {k: _refilled(v, tensors) for k, v in value.items()}
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        parts = [_refilled(v, tensors) for v in value]
        return parts if isinstance(value, list) else type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
