"""What a person may mean by what they give: several readings are tried in order, and one by which all is right is it."""

from __future__ import annotations

from dataclasses import replace

from chainrule.arrays.array import Unfollowed
from chainrule.diagnosis.functions.functions import check_functions
from chainrule.diagnosis.numbers import by_gradients
from chainrule.diagnosis.reading.arguments import parameters_of, with_an_input
from chainrule.diagnosis.reading.forms import form_of, made
from chainrule.diagnosis.reading.handwritten import Asked, Handwritten
from chainrule.diagnosis.reading.outputs import with_upstreams
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.report import Report
from chainrule.diagnosis.run_report import report_of
from chainrule.diagnosis.truth.numeric import by_differences
from chainrule.diagnosis.truth.reruns import state_of
from chainrule.errors import ChainruleError


def by_readings(given: Asked) -> Report:
    """The report by the first reading that is whole in itself; the last one has the last word."""
    *others, last = _meant(given)
    for asked in others:
        try:
            return _checked(asked)
        except ChainruleError:  # no step that is whole in itself
            continue
    return _by_either_reading(last)


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
        return by_differences(asked, error)
    if hand.regions and not hand.writes and not hand.asked.forward:
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
