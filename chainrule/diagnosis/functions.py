"""Checks each call of a person's torch.autograd.Function against the truth of its own forward."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import fx

from chainrule.backward import backward_pass
from chainrule.diagnosis.evidence import RIGHT, errors
from chainrule.diagnosis.handwritten import Handwritten
from chainrule.diagnosis.report import Finding, Report, Row
from chainrule.errors import ChainruleError
from chainrule.program import differentiable
from chainrule.recording import Region
from chainrule.run import double, needed, run


def check_functions(hand: Handwritten) -> Report:
    """A row for each floating input of each Function that was called, with a random upstream."""
    report = Report([])
    done: set[Any] = set()
    for region in hand.functions:
        if region.function not in done:
            done.add(region.function)
            _check_call(hand, region, report)
    return report


def _check_call(hand: Handwritten, region: Region, report: Report) -> None:
    function, name = region.function, region.function.__name__
    names = list(inspect.signature(function.forward).parameters)
    names = names[1:] if len(names) > len(region.arguments) else names
    given = [
        (n, a, v) for n, a, v in zip(names, region.arguments, region.values, strict=False) if isinstance(a, fx.Node)
    ]
    floating = [(n, a, v) for n, a, v in given if differentiable(a)]
    output = _output(hand, region)
    out = output.meta["val"]
    upstream = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    program = backward_pass(hand.recorder, output, upstream, [a for _, a, _ in floating])
    known = {n: double(n.meta["val"]) for n in hand.recorder.inputs} | {program.upstream: upstream.double()}
    with torch.no_grad():
        exact = run(needed([*program.gradients.values(), output]), known, double)  # type: ignore[arg-type]
    found = _by_function(region, floating, upstream)
    lines = inspect.getsourcelines(function.backward) if _has_source(function) else ([], 0)
    for (argument, node, value), g in zip(floating, found, strict=True):
        gradient = program.gradients.get(node)
        truth = exact[gradient] if gradient is not None else torch.zeros_like(value, dtype=torch.float64)
        row = Row(f"{name}.{argument}", "right", None, None, None, tuple(value.shape), lines[1] or None)
        row.file = inspect.getsourcefile(function) if lines[1] else None
        if g is None:
            row.status = "missing" if bool(truth.any()) else "right"
            message = f"{name}.backward returns None for {argument}, but the output depends on it"
        elif g.shape != value.shape:
            row.status, row.shape = "wrong shape", tuple(g.shape)
            message = f"{name}.backward returns {tuple(g.shape)} for {argument} of shape {tuple(value.shape)}"
        else:
            row.shape, (row.max_abs, row.max_rel) = tuple(g.shape), errors(g.double(), truth)
            limit = max(RIGHT, 200 * torch.finfo(g.dtype).eps)
            row.status = "right" if row.max_rel <= limit else "wrong"
            message = f"{name}.backward is wrong for {argument}: off by up to {row.max_abs:.3g} ({row.max_rel:.2g} of its size)"
        report.rows.append(row)
        if row.status != "right":
            cause = {"missing": "missing-gradient", "wrong shape": "wrong-shape"}.get(row.status, "wrong-gradient")
            report.findings.append(Finding(row.name, row.line, cause, message, "", False, row.file))


def _has_source(function: Any) -> bool:
    try:
        inspect.getsourcelines(function.backward)
    except (OSError, TypeError):
        return False
    return True


def _output(hand: Handwritten, region: Region) -> fx.Node:
    """What the Function returned: the node of its inside that is read outside, or the last one."""
    inside = set(region.nodes)
    entry = hand.recorder.entry(hand.output)
    for node in reversed(region.nodes):
        read = any(u not in inside for u in node.users) or (entry is not None and node is entry.node)
        if read and differentiable(node):
            return node
    return next(n for n in reversed(region.nodes) if differentiable(n))


def _by_function(region: Region, floating: list[Any], upstream: torch.Tensor) -> list[torch.Tensor | None]:
    """What the Function's own backward gives, called on fresh copies of its arguments."""
    leaves = {id(v): v.detach().clone().requires_grad_() for _, _, v in floating}
    args = [leaves.get(id(v), v) for v in region.values]
    with torch.enable_grad():
        out = region.function.apply(*args)
        if not isinstance(out, torch.Tensor):
            raise ChainruleError(f"{region.function.__name__} returns several outputs; check it through one at a time")
        if not out.requires_grad:
            return [None for _ in floating]
        return list(torch.autograd.grad(out, [leaves[id(v)] for _, _, v in floating], upstream, allow_unused=True))
