"""The verb: compares every hand-written gradient with the truth, and says of each mistake what it is."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.findings import Findings
from chainrule.diagnosis.handwritten import Asked, Handwritten, run_handwritten
from chainrule.diagnosis.identities import identities
from chainrule.diagnosis.locate import Located
from chainrule.diagnosis.report import Report


def check(
    code: Any,
    *args: Any,
    loss: Any = None,
    wrt: Any = None,
    forward: Any = None,
    reference: Any = None,
    **kwargs: Any,
) -> Report:
    """Compare every gradient that `code(*args)` computes by hand with the truth.

    `code` is one of

    - a function that leaves `.g` on tensors, or returns gradients: a dictionary, or a tuple in the order of `wrt`
      (names or tensors), else told by the names of the variables (`dw`, `w_grad`), else by the order of the
      arguments. Its loss is what it returns, or its local `loss`, or the local that `loss=` names;
    - an object with `forward` (or a call) and `backward`: one that leaves `.g`, or takes the upstream gradient,
      returns that of its input and keeps the others as attributes (`self.dw`);
    - a function that calls a torch.autograd.Function;
    - a backward function, `layer_backward(dout, cache)`, with its forward function as `forward=`. Both may be
      NumPy code; `reference=` is a forward pass in torch to be compared with, where theirs cannot be recorded.

    The hand-written pass is recorded and run again in float64, so that rounding is not taken for a mistake. Each
    finding names the line that is wrong given the gradients that it was computed from, the cause (one of
    `chainrule.diagnosis.causes.CAUSES`) and the repaired line, which has been run where `.proved` is true.

    Raises ChainruleError where no loss is found, or nothing was written by hand.

    >>> import torch
    >>> w = torch.tensor([1., 2.])
    >>> def step(x):
    ...     loss = (x * w).sum()
    ...     w.g = 2 * x
    >>> report = check(step, torch.ones(2))
    >>> report.ok, report.rows[0].status, report.findings[0].cause, report.findings[0].repair
    (False, 'wrong', 'wrong-scale', 'w.g = x')
    """
    asked = Asked(code, args, kwargs, loss, wrt, forward, reference)
    with torch.inference_mode(False):  # where autograd could not be asked
        hand = run_handwritten(asked)
        if hand.regions and not hand.writes and not hand.asked.forward:
            from chainrule.diagnosis.functions import check_functions

            return check_functions(hand)
        return report_of(asked, hand)


def report_of(asked: Asked, hand: Any, again: Any = None) -> Report:
    """The report on a recorded run; `again` runs the code once more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is tried, which the person did not write
        return _report(asked, hand, again)


def _report(asked: Asked, hand: Handwritten, again: Any) -> Report:
    located = Located(Case(hand))
    report = Report([])
    for claim in located.case.claims:
        report.rows.append(located.rows[claim])
    findings = Findings(located, again or (lambda: run_handwritten(asked)))
    report.rows += findings.missing_rows
    report.findings = findings.all()
    report.notes = located.notes + (identities(located) if report.ok else [])
    return report
