"""The verb: compares every hand-written gradient with the truth, and says of each mistake what it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from chainrule.arrays.array import Unfollowed
from chainrule.arrays.code import kinds_of
from chainrule.diagnosis.identities.identities import identities
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.locating.missing import not_looked_at
from chainrule.diagnosis.numbers import by_gradients
from chainrule.diagnosis.reading.arguments import parameters_of, with_an_input
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.forms import form_of, is_function_class, made
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten, Run
from chainrule.diagnosis.reading.outputs import with_upstreams
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.reading.state import State
from chainrule.diagnosis.repairing.findings import Findings
from chainrule.diagnosis.repairing.proof import kept
from chainrule.diagnosis.report import Report
from chainrule.diagnosis.truth.case import Case, same
from chainrule.diagnosis.truth.hidden import revealed
from chainrule.diagnosis.truth.reruns import Again, Rerun, state_of
from chainrule.errors import ChainruleError
from chainrule.run import needed


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
      returns that of its input and keeps the others as attributes (`self.dw`); or its class, if that needs no arguments;
    - a torch.autograd.Function, or an operator that is registered with torch.library, or a function that calls some;
    - a backward function, `layer_backward(dout, cache)`, with its forward function as `forward=`, or found beside
      it by its name, `layer_forward`. Both may be NumPy code; `reference=` is a forward pass in torch to be compared
      with, where theirs cannot be recorded.

    A plain number among the arguments (`b=0.3`) is an input where the code leaves a gradient of it, or `wrt` names it.

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
    given = Asked(code, args, kwargs, loss, wrt, forward, reference)
    with torch.inference_mode(False), _as_before(given):  # where autograd could not be asked
        from chainrule.diagnosis.functions.functions import check_alone

        if (report := check_alone(given)) is not None:
            return report
        *others, last = _meant(given)
        for asked in others:
            try:
                return _checked(asked)
            except ChainruleError:  # no step that is whole in itself
                continue
        return _by_either_reading(last)


@contextmanager
def _as_before(asked: Asked) -> Iterator[None]:
    """What a run of torch code leaves is the person's own, `.g` above all. Other code ran on arrays of ours, which are no
    values of theirs, and an autograd.Function may write into its arguments: afterwards all is as before."""
    own = "torch" in kinds_of(asked.code, (asked.args, asked.kwargs)) and not is_function_class(asked.code)
    state = None if own else State([asked.code, asked.args, asked.kwargs, asked.forward, asked.reference])
    try:
        yield
    finally:
        if state is not None:
            state.restore()


def _meant(asked: Asked) -> list[Asked]:
    """What may be meant: the code as it is, or with the forward pass that goes with it by its name."""
    form = form_of(asked.code)
    if asked.forward is not None:
        return [_without_upstream(asked)]
    alone = replace(asked, code=made(form.code) if isinstance(form.code, type) else form.code)
    if form.forward is None or asked.reference is not None:
        return [alone]
    paired = _without_upstream(replace(asked, code=form.code, forward=form.forward))
    return [paired] if form.certain else [paired, asked] if form.likely else [asked, paired]


def _without_upstream(asked: Asked) -> Asked:
    """The request without what only the backward function takes, `dout=`: its upstream gradient is a random one."""
    taken, own = parameters_of(asked.forward), parameters_of(asked.code)
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return asked
    return replace(asked, kwargs={k: v for k, v in asked.kwargs.items() if k in taken or k not in own})


def _by_either_reading(asked: Asked) -> Report:
    """A parameter of a backward function may be an output, an input under another name, or the gradient of an output: what
    is right by one reading is right, and else the one by which most is right is told."""
    others = with_upstreams(asked.code, asked.forward), with_an_input(asked.code, asked.forward)
    first, last = ([replace(asked, code=code)] if code is not None else [] for code in others)
    found: list[Report] = []
    error: Exception | None = None
    for reading in [*first, asked, *last]:
        try:
            found.append(_checked(reading))
        except Exception as raised:  # of theirs, too: it is given what it does not expect
            error = raised if error is None or reading is asked else error
            continue
        if found[-1].ok:
            return found[-1]
    if not found:
        assert error is not None
        raise error
    return max(found, key=lambda report: sum(row.status in ("right", "close") for row in report.rows))


def _checked(asked: Asked) -> Report:
    return by_gradients(asked, _checked_as_given)


def _checked_as_given(asked: Asked) -> Report:
    try:
        hand = run_handwritten(asked)
    except Unfollowed as error:
        from chainrule.diagnosis.truth.numeric import by_differences

        return by_differences(asked, error)
    if hand.regions and not hand.writes and not hand.asked.forward:
        from chainrule.diagnosis.functions.functions import check_functions

        return check_functions(hand)
    return _by_either_path(asked, hand)


def _by_either_path(asked: Asked, hand: Handwritten) -> Report:
    """What is computed under torch.no_grad on the way to the loss is a constant for autograd; for code whose backward pass
    is written by hand it may be a part of the forward pass as any other."""
    found, error = None, None
    try:
        found = report_of(asked, hand)
    except ChainruleError as raised:
        error = raised
    if (found is None or not found.ok) and hand.without_grad():
        state, cut = state_of(hand), replace(asked, cutting=True)
        try:
            instead = report_of(cut, run_handwritten(cut))
            if instead.ok or (found is not None and _is_no_worse(instead, found)):
                instead.notes.append("what is computed under torch.no_grad is a constant of the loss, as for autograd")
                return instead
        except ChainruleError:  # nothing is left that could have a gradient
            pass
        finally:
            state.restore()
    if found is None:
        assert error is not None
        raise error
    return found


def _is_no_worse(report: Report, than: Report) -> bool:
    return len(report.rows) == len(than.rows) and len(report.findings) <= len(than.findings)


def report_of(
    asked: Asked, hand: Any, again: Again | None = None, doubted: Callable[[Located], None] | None = None
) -> Report:
    """The report on a recorded run; `again` runs the code once more, as it is told, and `doubted` may raise where what is
    found wrong is not to be believed. What is drawn at random for it, dropout masks among that, is the same each time, and
    the generator is afterwards as it was."""
    rerun = again or (lambda run: run(asked))

    def report(located: Located, run: Run) -> Report:
        follow = _following(run)
        state = state_of(located.case.hand) if located.wrong or located.missing else None
        try:
            found = _report(located, Rerun(rerun, run), Rerun(rerun, follow))
            return _without_guards(found, located, Rerun(rerun, run))
        finally:
            if state is not None:  # repairs were tried
                state.restore()

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # of what is tried, which the person did not write
        torch.manual_seed(0)
        located = Located(Case(hand))
        if doubted is not None:
            doubted(located)
        found = report(located, run_handwritten)
        if not found.ok:
            return found
        return revealed(found, located, rerun, lambda hand, run: report(Located(Case(hand)), run))


def _report(located: Located, again: Rerun, follow: Rerun) -> Report:
    """`follow` runs the code once more and looks at what layers hand to one another."""
    report = Report([])
    for claim in located.case.claims:
        report.rows.append(located.rows[claim])
    located, again = _nearest(located, again)
    located, again = _followed(located, again, follow)
    findings = Findings(located, again)
    report.rows += findings.missing_rows
    report.findings = findings.all()
    report.notes = located.notes + (identities(located) if report.ok else [])
    report.notes += not_looked_at(located.case, located.missing)
    return report


def _without_guards(found: Report, located: Located, again: Rerun) -> Report:
    """The same with what the bare numbers tell, `p - y` of `log(p + 1e-7)`, where those with the small number tell nothing."""
    if not located.case.guards or all(f.cause != "unknown" for f in found.findings):
        return found
    bare = Located(Case(located.case.hand, bare=True))
    if [row.status for row in located.rows.values()] != [row.status for row in bare.rows.values()]:
        return found
    told = Findings(bare, again).all()
    known = [sum(f.cause != "unknown" for f in findings) for findings in (found.findings, told)]
    if len(told) <= len(found.findings) and known[1] > known[0]:
        found.findings = told
    return found


def _following(run: Run) -> Run:
    return lambda asked: run(replace(asked, following=True))


def _followed(located: Located, again: Rerun, follow: Rerun) -> tuple[Located, Rerun]:
    """What is wrong by what the layers hand to one another, where they are objects with a backward pass each."""
    if not (located.wrong or located.missing):
        return located, again
    try:
        with kept(located.case):
            hand = follow()
        if all(call.forward is None for call in hand.calls):
            return located, again
        nearer = Located(Case(hand))
    except Exception:  # whatever the code raises when it is run once more
        return located, again
    said = [sorted((row.name, row.status) for row in loc.rows.values()) for loc in (located, nearer)]
    handed = nearer.case.handed or any("handed" in c.node.meta for c in nearer.case.claims)
    return (nearer, follow) if handed and said[0] == said[1] else (located, again)


def _nearest(located: Located, again: Rerun) -> tuple[Located, Rerun]:
    """What is wrong by the gradients of their own forward pass instead of the reference's, where they have gradients
    of its values on the way (`dvar`), and where both give the same."""
    if not (located.wrong or located.missing) or not _names_own(located.case):
        return located, again
    try:
        nearer = Located(Case(again().by_own))
    except ChainruleError:  # their forward pass is no program of torch's
        return located, again
    truths = [[loc.case.here.truth(c.value) for c in loc.case.claims] for loc in (located, nearer)]
    alike = len(truths[0]) == len(truths[1]) and all(same(a, b) for a, b in zip(*truths, strict=True))
    further = len(nearer.known) > len(nearer.case.claims)
    return (nearer, replace(again, own=True)) if alike and further else (located, again)


def _names_own(case: Case) -> bool:
    """Whether a name in the backward pass means a value of their own forward pass that the reference does not have."""
    entry = case.recorder.entry(case.hand.own) if case.hand.own is not None else None
    if entry is None:
        return False
    own = set(needed([entry.node]))
    names = {n.meta.get("name") for n in own if n not in case.base.gradients} - {None}
    return any(m in names for n in case.graph.nodes if n not in own for m in names_meant(n.meta.get("name") or ""))
