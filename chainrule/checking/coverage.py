"""How much of PyTorch the rule book covers, measured on torch's own operator database.

Each differentiable entry of `op_db` is derived on all its strided float64 samples, as the sum of its
outputs times fixed weights, and compared with autograd.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any

import torch

import chainrule as cr
from chainrule.errors import ChainruleError
from chainrule.rules import BOOK

TOLERANCE = 1e-7  # relative to the largest element of autograd's gradient
RULES, STEP, WRONG, CRASHED = "rules", "autograd step", "wrong", "crashed"


@dataclass
class Result:
    """What came out for one entry of the database."""

    entry: str
    status: str  # "rules", "autograd step", "wrong" or "crashed"
    samples: int = 0
    fallbacks: list[str] = field(default_factory=list)
    family: str = ""
    message: str = ""  # of the first sample that went wrong
    failed: list[int] = field(default_factory=list)  # which samples went wrong


def entries() -> dict[str, Any]:
    """The differentiable entries of torch's operator database, by name."""
    from torch.testing._internal.common_methods_invocations import op_db

    found = (op for op in op_db if op.supports_autograd and torch.float64 in op.dtypes)
    return {op.name + (f".{op.variant_test_name}" if op.variant_test_name else ""): op for op in found}


def samples(op: Any) -> Iterator[Any]:
    """The strided float64 samples of an entry."""
    torch.manual_seed(0)
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        if all(t.layout is torch.strided for t in _tensors((sample.input, sample.args, sample.kwargs))):
            yield sample


def measure(name: str, emit: bool = False, only: int | None = None) -> Result:
    """Derive an entry on its samples and compare with autograd; with `emit`, run its emitted code as well."""
    op, result = entries()[name], Result(name, RULES)
    for number, sample in enumerate(samples(op)):
        if only is not None and number != only:
            continue
        result.samples += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                message = _one(op, sample, result, emit)
            status = WRONG if message else RULES
        except Exception as error:
            message = str(error) if isinstance(error, ChainruleError) else f"{type(error).__name__}: {error}"
            status = CRASHED
        if message:
            result.status = status if result.status != WRONG else WRONG
            result.message = result.message or f"sample {number}: {message}"
            result.failed.append(number)
    if result.status == RULES and result.fallbacks:
        result.status = STEP
    return result


def measure_all(names: Iterable[str], emit: bool = False, processes: int | None = None) -> Iterator[Result]:
    """Measure many entries, in as many processes as there are cores."""
    jobs = [(name, emit) for name in names]
    entries()  # imported once, before the processes part
    with get_context("fork").Pool(
        processes or os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.imap_unordered(_measure, jobs)


def table(results: Iterable[Result]) -> dict[str, dict[str, list[str]]]:
    """Entries by family and status."""
    found: dict[str, dict[str, list[str]]] = {}
    for r in sorted(results, key=lambda r: (r.family, r.entry)):
        found.setdefault(r.family, {}).setdefault(r.status, []).append(r.entry)
    return found


def as_json(results: Iterable[Result]) -> list[dict[str, Any]]:
    return [asdict(r) for r in sorted(results, key=lambda r: r.entry)]


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
            result.family = result.family or "no gradient"
            return ""  # rounding and the like: autograd gives zeros
        raise
    result.fallbacks = sorted({*result.fallbacks, *d.fallbacks})
    result.family = result.family or _family(d, op.name)
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


def _family(d: cr.Derivation, name: str) -> str:
    """The family of the rule that the entry is measured for: of its own name, else of its first operation."""
    operations = [n.meta["operation"] for n in d.program.graph.nodes if n.op in ("call_function", "call_method")]
    for operation in (name.rpartition(".")[2], *operations):
        rule = BOOK.find(operation)
        if rule is not None:
            return rule.backward.__module__.rpartition(".")[2]
    return "without a rule"


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
