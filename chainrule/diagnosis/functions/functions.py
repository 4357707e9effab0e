"""Checks torch.autograd.Functions and registered operators: their forward and backward as an ordinary pair of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from chainrule.arrays.values import as_tensors
from chainrule.diagnosis.functions.as_pair import pair
from chainrule.diagnosis.functions.contracts import broken_promises
from chainrule.diagnosis.functions.function_calls import Calls, Failed, Gradients, Refused, parameter_names
from chainrule.diagnosis.functions.mending import on_their_lines
from chainrule.diagnosis.functions.operators import broken_promises_of_operator
from chainrule.diagnosis.functions.ordinary_call import place
from chainrule.diagnosis.functions.second_order import first_order_errors
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.reading.forms import is_function_class, placed
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten, Run
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.report import Finding, Report
from chainrule.diagnosis.run_report import report_of
from chainrule.errors import ChainruleError
from chainrule.reached import STEPS, flat_between
from chainrule.recording.numbers import Tracked
from chainrule.recording.operators import function_of, overload_of


def check_alone(asked: Asked) -> Report | None:
    """The report on a Function, or on an operator that is registered with torch.library, which `asked.code` is; None for
    other code. A row for each floating input, with a random upstream gradient.

    Raises ChainruleError for an operator without a backward in Python."""
    args, kwargs = as_tensors((asked.args, asked.kwargs))
    if is_function_class(asked.code):
        return _check_call(asked.code, placed(asked.code, args, kwargs), asked.reference)
    if (operator := overload_of(asked.code)) is None:
        return None
    if (found := function_of(operator, args, kwargs)) is None:
        raise ChainruleError(
            f"{operator} has no backward pass in Python whose gradients could be checked; give it one with "
            "torch.library.register_autograd, and take each tensor as an argument of its own"
        )
    return _check_call(found[0], found[1], asked.reference)


def check_functions(hand: Handwritten) -> Report:
    """A row for each floating input of each Function that was called.

    Raises ChainruleError where the code gives another output than the reference that was given for it."""
    theirs, asked = hand.returned, hand.asked
    if asked.reference is not None and not (isinstance(theirs, torch.Tensor) and _alike(theirs, hand.output)):
        raise ChainruleError(
            f"{asked.name} gives another output than its reference; a reference for a Function that it calls is given with "
            "that Function: check(Function, ..., reference=)"
        )
    report = Report([])
    done: set[Any] = set()
    for region in hand.regions:
        if region.function in done:
            continue
        done.add(region.function)
        before = [a.meta["val"] if _is_input(a) else v for a, v in zip(region.arguments, region.values, strict=True)]
        args = [_apart(value) for value in before]  # as they were when it was called, if it writes into them
        for arg, given in zip(args, region.values, strict=True):
            if isinstance(arg, torch.Tensor) and isinstance(given, torch.Tensor) and given.requires_grad:
                arg.requires_grad_()
        found = _check_call(region.function, args)
        report.rows += found.rows
        report.findings += found.findings
        report.notes += found.notes
    return report


def _check_call(function: Any, given: Sequence[Any], reference: Callable[..., Any] | None = None) -> Report:
    name, args = function.__name__, tuple(given)
    calls = Calls(function, args)  # on copies, before it may write into them

    def again(run: Run = run_handwritten) -> Handwritten:
        return run(pair(function, args, reference))

    try:
        hand = again()
    except (RuntimeError, ValueError, IndexError):  # an own error of theirs, perhaps for the layout in memory alone
        if all(a.is_contiguous() for a in args if isinstance(a, torch.Tensor)):
            raise
        args = tuple(_contiguous(a) if isinstance(a, torch.Tensor) else a for a in args)
        hand = again()
    certain, estimated = _without_estimates(hand)

    def doubted(located: Located) -> None:
        if reference is None:
            _refuse_unfollowed(calls, located)

    found = report_of(certain.asked, certain, lambda run: _without_estimates(again(run))[0], doubted)
    found.notes += estimated
    for row in found.rows:
        row.name = f"{name}.{row.name}"
    for finding in found.findings:
        finding.name = f"{name}.{finding.name}"
        finding.message = f"{name}.backward: {finding.message}"
    if found.ok:

        def broken() -> list[Finding]:
            found = broken_promises(function, args, reference)
            if not hasattr(function, "operator"):
                return found
            compiled = all(map(_of_second_derivatives, found))
            return _broken_as_registered(function, args, compiled) + found

        told = broken()
        found.notes += [b.message for b in told if _of_second_derivatives(b)]
        others = [b for b in told if not _of_second_derivatives(b)]
        found.findings += on_their_lines(others, hand, broken, Calls(function, args))
    return found


def _refuse_unfollowed(calls: Calls, located: Located) -> None:
    """Raise ChainruleError where a gradient that seems wrong is the slope of what the forward gives, or where the one that
    seems right is not: the recorded forward lacks a path then, through a kernel or NumPy."""
    case = located.case
    places = {node: i for i, node in enumerate(case.hand.given_to_function()) if node is not None}
    wrong = {places[c.value]: c for c, row in located.rows.items() if row.status == "wrong" and c.value in places}
    calls.values = calls.with_dtype(True)
    if not wrong or any(calls.values[i].is_complex() for i in calls.floating):
        return
    given = (
        [n for n in case.recorder.inputs if n.meta.get("weighs")]
        if case.hand.upstream is None
        else [case.base.upstream]
    )
    upstreams = [case.here.values[n] for n in given if n is not None]
    theirs = {i: case.here.values.get(c.node) for i, c in wrong.items()}
    truth: Gradients = {i: case.here.truth(c.value) for i, c in wrong.items()}
    try:
        found = [{i: e for i, e in first_order_errors(calls, calls.gradients()[1]).items() if i in wrong}]
        drawn = any(n.meta["operation"] == "drawn" for n in case.recorder.inputs)
        if not drawn and len(upstreams) == len(calls.forward().outputs):
            found.append(first_order_errors(calls, truth, upstreams, theirs))
    except (Refused, Failed, RuntimeError):
        return
    right = [i for i, error in found[0].items() if error is not None and error < 1e-7]
    untrue = [i for i, error in (found[1] if found[1:] else {}).items() if error is not None and error > 1e-3]
    if right or untrue:
        names = parameter_names(calls.function, len(calls.values))
        raise ChainruleError(
            f"the forward pass of {calls.name} cannot be recorded from {' and '.join(names[i] for i in right or untrue)}"
            f" on (NumPy, a kernel, an extension); check {calls.name} alone and give its forward pass in torch with "
            "reference="
        )


def _of_second_derivatives(broken: Finding) -> bool:
    return "once_differentiable" in broken.repair  # few people take them: a note


def _broken_as_registered(function: Any, args: Sequence[Any], compiled: bool) -> list[Finding]:
    found = broken_promises_of_operator(function.operator, args, function.named, compiled)
    for finding in found:
        if finding.file is None:  # its kernel is written elsewhere
            finding.file, finding.line, finding.text = place(function.backward, None)
    return found


def _without_estimates(hand: Handwritten) -> tuple[Handwritten, list[str]]:
    """The run without the gradients that are passed straight through what is flat between its steps, and a note on each.
    Raises ChainruleError where there are no others."""
    returned = hand.returned if isinstance(hand.returned, tuple) else (hand.returned,)
    kept, notes, output = list(returned), list[str](), hand.recorder.entry(hand.output)
    for at, (node, gradient) in enumerate(zip(hand.given_to_function(), returned, strict=False)):
        if node is None or output is None or not isinstance(gradient, torch.Tensor) or not gradient.any():
            continue
        if flat := flat_between(node, output.node, STEPS):
            kept[at] = None
            notes.append(
                f"the true gradient of {node.meta['name']} is 0 almost everywhere, as {flat} is flat between its steps, so "
                f"the straight-through estimator of {hand.asked.function} cannot be checked against it"
            )
    if notes and not any(isinstance(g, torch.Tensor) for g in kept):
        raise ChainruleError(notes[0])
    return replace(hand, returned=tuple(kept)) if notes else hand, notes


def _alike(theirs: torch.Tensor, output: torch.Tensor) -> bool:
    theirs, output = theirs.detach().double(), output.detach().double()
    return theirs.shape == output.shape and torch.allclose(theirs, output, rtol=1e-3, atol=1e-5, equal_nan=True)


def _is_input(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "placeholder"


def _apart(value: Any) -> Any:
    """An argument without what the run knew of it: a number that was computed from a size is a number."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.plain() if isinstance(value, Tracked) else value


def _contiguous(value: torch.Tensor) -> torch.Tensor:
    return value.detach().clone(memory_format=torch.contiguous_format).requires_grad_(value.requires_grad)
