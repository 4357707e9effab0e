"""The report on one recorded run: which gradients are right, which line is wrong given the others, why, and its repair."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from chainrule.diagnosis.identities.identities import identities
from chainrule.diagnosis.locating.locate import Located
from chainrule.diagnosis.locating.missing import not_looked_at
from chainrule.diagnosis.reading.claim import names_meant
from chainrule.diagnosis.reading.handwritten import Asked, Run
from chainrule.diagnosis.reading.running import run_handwritten
from chainrule.diagnosis.repairing.findings import Findings
from chainrule.diagnosis.repairing.proof import kept
from chainrule.diagnosis.report import Report
from chainrule.diagnosis.truth.case import Case, same
from chainrule.diagnosis.truth.hidden import revealed
from chainrule.diagnosis.truth.reruns import Again, Rerun, state_of
from chainrule.errors import ChainruleError
from chainrule.run import needed


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
    if not located.case.guards.added_to or all(f.cause != "unknown" for f in found.findings):
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
    if not located.missing and all(w.is_within(located.case.hand.asked.code) for w in located.wrong):
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
    return (nearer, follow) if handed and not nearer.contrary and said[0] == said[1] else (located, again)


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
